"""How to run a grid: nothing here changes what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError, did_you_mean
from orchestrator.run.backends.registry import BACKENDS
from workers.unit import DEFAULT_RUNNER

_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")  # which have options of their own


@dataclass(frozen=True)
class RunOptions:
    """How to run a grid, as the command line says it."""

    output: str
    backend: str = "ray"
    address: str = "local"
    workers: int | None = None  # neither more nor fewer
    min_workers: int | None = None
    max_workers: int | None = None  # that the cluster's autoscaler may be asked for
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None
    use_cpus: bool = False  # workers without a GPU too, on what those with one leave
    memory_per_worker: int | None = None  # bytes
    resources_per_worker: tuple[tuple[str, float], ...] = ()  # a cluster's own, as (name, amount)
    ship: tuple[str, ...] = ()  # files and folders that workers on other machines need
    retry_failed: bool = False
    only: tuple[str, ...] = ()  # "model=small_cnn,attack=fgsm": the cells to compute; none: all of the grid
    max_failures: str | None = None  # "5" or "10%"
    unit_timeout: float | None = None  # seconds; None: as the backend has it; 0: no limit
    wait_for_workers: float = 600.0  # seconds that a run goes on while no worker lives; 0: for ever
    stop_after: float | None = None  # seconds
    data_dir: str | None = None
    cache_dir: str | None = None
    runner: str = DEFAULT_RUNNER

    def __post_init__(self) -> None:
        if isinstance(self.resources_per_worker, Mapping):  # as Python has it
            object.__setattr__(self, "resources_per_worker", tuple(self.resources_per_worker.items()))

    def check(self) -> None:
        """UserError for what can be seen to be wrong before anything runs."""
        if self.backend not in BACKENDS:
            near = did_you_mean(self.backend, BACKENDS)
            raise UserError(f'--backend: found "{self.backend}"; {near}allowed: {", ".join(BACKENDS)}')
        for name, why in BACKENDS[self.backend].refused.items():
            if getattr(self, name) != getattr(RunOptions, name):
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} has no meaning with --backend {self.backend}: {why}")
        self._check_pool()
        self.allowed_failures(0)
        if isinstance(self.only, str):
            raise UserError(f'only: found "{self.only}"; a list such as ["{self.only}"] is allowed')
        data = self.data_dir
        # On a cluster the folder may be one that only its machines see.
        if data and self.address == "local" and "://" not in data and not Path(data).expanduser().is_dir():
            raise UserError(f"--data-dir: no folder {data}")

    def _check_pool(self) -> None:
        least, most, gpus = self.min_workers, self.max_workers, self.gpus_per_worker
        if self.workers is not None and (least is not None or most is not None):
            raise UserError(
                "--workers is a pool of one size: it goes without --min-workers and --max-workers"
            )
        for name in ("workers", "min_workers", "max_workers", "cpus_per_worker", "memory_per_worker"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')}: found {value}; 1 or more is allowed")
        if least is not None and most is not None and least > most:
            raise UserError(f"--min-workers {least} is more than --max-workers {most}")
        if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
            raise UserError(
                f"--gpus-per-worker: found {gpus:g}; a fraction of one or a whole number is allowed"
            )
        for name, amount in self.resources_per_worker:
            if name in _RAYS_OWN or not amount > 0 or (amount > 1 and amount != int(amount)):
                raise UserError(
                    f'--resources-per-worker: found "{name}={amount:g}"; a resource of the cluster\'s own '
                    "with a fraction of one or a whole number above 0 is allowed, such as spot=1"
                )
        if isinstance(self.ship, str):
            raise UserError(f'ship: found "{self.ship}"; a list such as ["{self.ship}"] is allowed')
        for path in self.ship:
            if not Path(path).expanduser().exists():
                raise UserError(f"--ship: there is no {path}")

    @property
    def least_workers(self) -> int:
        """The pool never gets smaller for lack of work."""
        return self.workers or self.min_workers or 0

    @property
    def asked_workers(self) -> int:
        """So many may be asked of a cluster that can bring more machines; 0: what is there has to do."""
        return self.max_workers or self.workers or self.min_workers or 0

    @property
    def seconds_per_unit(self) -> float | None:
        """The longest one unit may take; None: no limit."""
        default = BACKENDS[self.backend].unit_timeout
        return (default if self.unit_timeout is None else self.unit_timeout) or None

    def allowed_failures(self, units: int) -> float:
        """How many of `units` may fail before the sweep stops; UserError for a wrong `max_failures`."""
        text = self.max_failures
        if text is None:
            return float("inf")
        try:
            number = float(text.removesuffix("%"))
            if number >= 0 and (not text.endswith("%") or number <= 100):
                return units * number / 100 if text.endswith("%") else number
        except ValueError:
            pass
        raise UserError(
            f'--max-failures: found "{text}"; a count such as 5, or a share such as 10%, is allowed'
        )
