"""The Ray that this process is connected to: started here or joined, its machines, and whether it lives."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get

from orchestrator.errors import BackendError
from orchestrator.run.backends.quiet import stderr_to
from orchestrator.run.backends.ray_local import kept_to_ourselves, read_settings
from orchestrator.run.backends.ray_watchdog import Watchdog
from workers.machine import available_cpus

# Actors exchange only units and reports: Ray's default store would claim a third of the memory.
_OBJECT_STORE_BYTES = 100 * 1024 * 1024

_autoscaler: Any = autoscaler_pb2  # its names are made when it is imported

_LOOK_SECONDS = 2.0
# A head that was started anew answers within this time; after 60 s without one Ray ends this process itself,
# with nothing on the terminal.
_SILENT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Node:
    """A live machine, or what Ray takes for one."""

    node_id: str
    host: str
    resources: Mapping[str, float]  # all that it has, by Ray's names
    free: Mapping[str, float]  # what nobody uses, as of a moment ago
    leaving: bool = False  # told to go, as spot machines are before they vanish

    @property
    def name(self) -> str:
        return f"{self.host} (node {self.node_id[:8]})"


class Cluster:
    """This process's connection to Ray: to one started here (`address` is "local") or to one that runs."""

    def __init__(self, address: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._clock = clock
        self._quiet = ExitStack()
        self._head: tuple[str, int] | None = None  # of a cluster that was joined
        self._here = ""  # the node that this process hangs on
        self._looked = self._asked = clock()
        self._silent_since: float | None = None
        self._watchdog: Watchdog | None = None

    @property
    def local(self) -> bool:
        return self.address == "local"

    def connect(self, working_dir: Path | None = None) -> None:
        """Start Ray here, or join the cluster; BackendError says why that cannot be.

        What lies in `working_dir` is brought to every machine, and is where workers run.
        """
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if working_dir:
            options["runtime_env"] = {"working_dir": str(working_dir)}
        if self.local:
            options |= {
                "num_cpus": available_cpus(),
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        head = _host_and_port(self.address)
        # Ray itself tries for minutes.
        if head and (why := _refuses(head)):
            raise BackendError(f"cannot reach Ray at --address {self.address}: {why}")
        with tempfile.TemporaryDirectory(prefix="robustsweep-") as folder:
            said = Path(folder) / "ray"
            try:
                with stderr_to(said), _own_sigterm(), ExitStack() as alone:
                    if self.local:
                        options |= alone.enter_context(kept_to_ourselves())
                    elif not ray.is_initialized():
                        read_settings()  # Ray has those of the first cluster that this process has joined
                    ray.init(self.address, **options)
            except BackendError:
                raise
            except Exception as error:  # a start that took too long is a bare Exception
                raise BackendError(self._why_not(error, said.read_text(errors="replace"))) from None
        self._quiet.enter_context(_ray_prints_to_stderr())
        context = ray.get_runtime_context()
        self._here = context.get_node_id()
        self._head = None if self.local else _host_and_port(context.gcs_address)
        self._silent_since = None
        self._watchdog = Watchdog(self._head_is_gone)

    def close(self) -> None:
        """Leave the cluster, or end the Ray that was started here; its folder goes, unless it has died."""
        node = ray._private.worker._global_node if self.local else None
        sound = node is not None and not self._ended()
        if node is not None:
            _back_to_python_before(node)
        ray.shutdown(wait_for_processes=sound)
        _back_to_python()
        if self._watchdog:
            self._watchdog.stop()
        if node is not None and sound:
            session = Path(node.get_session_dir_path())
            latest = session.parent / "session_latest"
            with suppress(OSError):
                if latest.readlink() == session:
                    latest.unlink()
            shutil.rmtree(session, ignore_errors=True)
        if self.local:
            read_settings()
        self._quiet.close()

    def lost(self) -> str:
        """Why this connection is of no use any more; empty while it is."""
        ended = self._ended()
        for kind in ("raylet", "gcs_server"):
            if kind in ended:
                return f"its process {kind} ended with {_ending(ended[kind])}"
        if self._clock() - self._looked < _LOOK_SECONDS:
            return ""
        self._looked = self._clock()
        if self.answers():
            # Workers die with the node that their driver hangs on, and new ones are never started.
            alive = self._here in self.alive()
            return "" if alive else "Ray has given up the node on this machine: its raylet may have died"
        if self._head and self._clock() - (self._silent_since or 0.0) >= _SILENT_SECONDS:
            return f"its head at {self._head[0]}:{self._head[1]} has not answered for {_SILENT_SECONDS:.0f} s"
        return ""

    def answers(self) -> bool:
        """Whether Ray's head can be asked: with a dead one, a question blocks until Ray ends this process."""
        if self._head is None:
            return "gcs_server" not in self._ended()
        now = self._clock()
        if self._silent_since is None or now - self._asked >= _LOOK_SECONDS:
            self._asked = now
            if not _refuses(self._head):
                self._silent_since = None
            elif self._silent_since is None:
                self._silent_since = now
        return self._silent_since is None

    def alive(self) -> set[str]:
        """The ids of the live machines; none while the head does not answer."""
        return {node["NodeID"] for node in ray.nodes() if node["Alive"]} if self.answers() else set()

    def nodes(self) -> list[Node]:
        """The live machines; none while the head does not answer."""
        if not self.answers():
            return []
        state = ray._private.state.state
        free, leaving = state.available_resources_per_node(), state.get_draining_nodes()
        return [
            Node(
                node_id=node["NodeID"],
                host=node["NodeManagerHostname"],
                resources=node["Resources"],
                free=free.get(node["NodeID"], {}),
                leaving=node["NodeID"] in leaving,
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def can_bring(self, able: Callable[[Mapping[str, float]], bool]) -> bool | None:
        """Whether the cluster has an autoscaler that could bring a machine whose resources are `able`; None
        while nothing is known of one.

        Where an autoscaler has not said which machines it can bring, any might be.
        """
        if self.local or not self.answers():
            return False
        config = ray._private.state.state.get_cluster_config()
        if config and config.node_group_configs:
            groups = config.node_group_configs
            return any(group.max_count and able(dict(group.resources)) for group in groups)
        if is_autoscaler_v2(fetch_from_server=True):
            return True
        said = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or b"{}")
        if not (report := said.get("autoscaler_report")):
            return None
        # Without an autoscaler, each machine counts as of a type of its own.
        kinds = {*report["active_nodes"], *(report.get("node_type_mapping") or {}).values()}
        return any(not kind.startswith("node_") for kind in kinds)

    def refuses(self, needs: Mapping[str, float]) -> bool:
        """Whether the cluster's autoscaler has said that it has no kind of machine for what was asked for.

        Only the second version of Ray's says so.
        """
        if self.local or not self.answers() or not is_autoscaler_v2(fetch_from_server=True):
            return False
        worker: Any = ray._private.worker.global_worker
        try:
            said = worker.gcs_client.get_cluster_status(timeout_s=_LOOK_SECONDS)
        except RayError:
            return False
        state = _autoscaler.GetClusterStatusReply.FromString(said).autoscaling_state
        return any(dict(one.resources_bundle) == needs for one in state.infeasible_resource_requests)

    def token_hint(self, cause: str) -> str:
        """What to try, where workers die of a cause as when this process asks for a token and the cluster has
        none: the head cannot ask this process whether it lives, and takes it for dead."""
        if self.local or "cancelled before it started" not in cause or not _asks_for_a_token():
            return ""
        return (
            " This process has RAY_AUTH_MODE=token, as any has that started a Ray of its own before; "
            "where the cluster has no token, set RAY_AUTH_MODE=disabled"
        )

    def _head_is_gone(self) -> str:
        """Why it will answer no question, as far as can be seen without one; empty while it does."""
        if self._head is not None:
            why = _refuses(self._head)
            return f"its head at {self._head[0]}:{self._head[1]}: {why}" if why else ""
        ended = self._ended().get("gcs_server")
        return "" if ended is None else f"its process gcs_server ended with {_ending(ended)}"

    def _ended(self) -> dict[str, int]:
        """Ray's processes that were started here and have ended, with their exit codes."""
        node = ray._private.worker._global_node if self.local else None
        return {kind: process.returncode for kind, process in node.dead_processes()} if node else {}

    def _why_not(self, error: Exception, said: str) -> str:
        """One line on why Ray cannot be had, from its error and what it has `said` meanwhile."""
        text = str(error).strip()
        if (isinstance(error, RayError) and "oken" in text) or "InvalidAuthToken" in said:
            return (
                f"Ray at --address {self.address} asks for a token, and this process has none, or a wrong "
                "one: set RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
            )
        if versions := re.findall(r"(Ray|Python): (\S+)", text if "ersion mismatch" in text else ""):
            theirs, ours = (" and ".join(map(" ".join, part)) for part in (versions[:2], versions[2:]))
            return (
                f"Ray at --address {self.address} runs {theirs}, this process {ours}: they must be the same"
            )
        reason = " ".join(text.split()) or type(error).__name__
        if self.local:
            return f"Ray does not start on this machine: {reason}"
        return f"cannot reach Ray at --address {self.address}: {reason}"


def _asks_for_a_token() -> bool:
    native: Any = ray._raylet
    return bool(native.get_authentication_mode() == native.AuthenticationMode.TOKEN)


def _host_and_port(address: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"\[?([^\[\]/]+?)\]?:(\d+)", address)
    return (match[1], int(match[2])) if match else None


def _refuses(address: tuple[str, int]) -> str:
    """Why nothing answers there; empty if something does."""
    try:
        socket.create_connection(address, timeout=2.0).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts handlers of its own on SIGTERM, which end the process: two from Python, as it starts and for
    good, and one below Python, whose alarm goes off seconds later.

    AttributeError, rather than an end that nobody asked for, when another version of Ray has no such thing.
    """
    module: Any = ray._private.utils
    before = module.set_sigterm_handler
    module.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        module.set_sigterm_handler = before
        _back_to_python()


def _back_to_python() -> None:
    """Have SIGTERM come to the handler that Python knows of: below Python, Ray puts its own in the place, and
    the system's when it ends."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _back_to_python_before(node: Any) -> None:
    """The same as soon as Ray has left this process, and not only when its own have ended, a second later.

    AttributeError, rather than an end that nobody asked for, when another version of Ray has no such thing.
    """
    end_processes = node.kill_all_processes

    def end(**options: Any) -> None:
        _back_to_python()
        end_processes(**options)

    node.kill_all_processes = end


@contextmanager
def _ray_prints_to_stderr() -> Iterator[None]:
    """Ray prints on the driver's standard output whenever a worker dies, with no setting against it.

    AttributeError, rather than a garbled display, when another version of Ray has no such function.
    """
    module: Any = ray._private.worker
    before = module.print_to_stdstream

    def to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        os.write(2, "".join(f"{line}\n" for line in data["lines"]).encode())

    module.print_to_stdstream = to_stderr
    try:
        yield
    finally:
        module.print_to_stdstream = before
