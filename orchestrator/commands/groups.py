"""Options that several commands share, declared once, as the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

from orchestrator.commands.arguments import (
    AddressOption,
    BackendOption,
    CpusOption,
    DataOption,
    GpusOption,
    MaxFailuresOption,
    MaxWorkersOption,
    MemoryOption,
    MinWorkersOption,
    ResourcesOption,
    RetryOption,
    RunCacheOption,
    ShipOption,
    StopOption,
    TimeoutOption,
    UseCpusOption,
    WaitOption,
    WorkersOption,
    chosen_by,
)
from orchestrator.commands.parsing import parse_amounts, parse_bytes, parse_duration

if TYPE_CHECKING:
    from orchestrator.run.options import RunOptions

_T = TypeVar("_T")


def takes(group: type[Any]) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """A command whose parameter annotated with `group`, a dataclass, comes from options: one for each of its
    fields, where the parameter stands."""

    def decorate(command: Callable[..., _T]) -> Callable[..., _T]:
        signature = inspect.signature(command, eval_str=True)
        [name] = [each.name for each in signature.parameters.values() if each.annotation is group]
        hints = get_type_hints(group, include_extras=True)
        options = [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in fields(group)
        ]
        taken = {option.name for option in options}

        @wraps(command)
        def run(**given: Any) -> _T:
            of_group = {option: given.pop(option) for option in taken}
            return command(**given, **{name: group(**of_group)})

        parameters: list[Parameter] = []
        for each in signature.parameters.values():
            own = each.replace(kind=Parameter.KEYWORD_ONLY)
            parameters += options if each.name == name else [own]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


@dataclass(frozen=True, kw_only=True)
class Running:
    """How to run: with which workers, for how long, and what to do where something fails."""

    backend: BackendOption = "ray"
    workers: WorkersOption = None
    min_workers: MinWorkersOption = None
    max_workers: MaxWorkersOption = None
    cpus_per_worker: CpusOption = None
    gpus_per_worker: GpusOption = None
    use_cpus: UseCpusOption = False
    memory_per_worker: MemoryOption = None
    resources_per_worker: ResourcesOption = None
    ship: ShipOption = None
    address: AddressOption = "local"
    retry_failed: RetryOption = False
    max_failures: MaxFailuresOption = None
    wait_for_workers: WaitOption = "10m"
    unit_timeout: TimeoutOption = None
    stop_after: StopOption = None
    data_dir: DataOption = None
    cache_dir: RunCacheOption = None

    def options(self, output: str, *, only: tuple[str, ...] = ()) -> RunOptions:
        """The same, checked: durations and sizes are what people write of them. UserError."""
        from orchestrator.run.options import RunOptions

        given = vars(self).copy()
        for name in ("wait_for_workers", "unit_timeout", "stop_after"):
            if given[name] is not None:
                given[name] = parse_duration(given[name], f"--{name.replace('_', '-')}")
        if self.memory_per_worker is not None:
            given["memory_per_worker"] = parse_bytes(self.memory_per_worker, "--memory-per-worker")
        resources = parse_amounts(self.resources_per_worker or (), "--resources-per-worker")
        given |= {"resources_per_worker": resources, "ship": tuple(self.ship or ())}
        options = RunOptions(output=output, only=only, **given)
        options.check()
        return options


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which rows of tables, lines of figures, or kept images."""

    dataset: Annotated[list[str] | None, chosen_by("dataset")] = None
    model: Annotated[list[str] | None, chosen_by("model")] = None
    defence: Annotated[list[str] | None, chosen_by("defence")] = None
    attack: Annotated[list[str] | None, chosen_by("attack")] = None
    norm: Annotated[list[str] | None, chosen_by("norm")] = None

    @property
    def names(self) -> dict[str, list[str]]:
        """What is asked for by each key of `results.choice.KEYS`, less those by which nothing is."""
        from orchestrator.results.choice import wanted_names

        return wanted_names(**vars(self))
