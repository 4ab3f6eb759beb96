"""The machines that workers may be started on: looked at when they join, left out where none starts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from orchestrator.run.backends import Notice
from orchestrator.run.backends.ray_cluster import Cluster, Node
from orchestrator.run.backends.ray_preflight import Preflight
from orchestrator.run.backends.shapes import Shape, carried
from workers.preflight import Findings

MAX_FAILED_STARTS = 3  # of one machine, in a row
_PATIENCE_SECONDS = 5.0  # once one machine is good, a start does not wait longer for the answers of others


class Machines:
    """Of a cluster those that have room for a worker of any of the `kinds`, free or not.

    Without a `preflight` all of them are good at once.
    """

    def __init__(self, cluster: Cluster, kinds: Sequence[Shape], preflight: Preflight | None) -> None:
        self.joined = self.gone = 0  # since the first look
        self._cluster = cluster
        self._kinds = kinds
        self._preflight = preflight
        self._known: dict[str, Node] | None = None
        self._good: set[str] = set()
        self._left_out: dict[tuple[str, str], str] = {}  # (machine, kind) -> which, and why
        self._failed_starts: Counter[tuple[str, str]] = Counter()  # since one there was good

    def look(self) -> list[Notice]:
        """See who has come and gone, have those that came looked at, and hear what was found."""
        if not self._cluster.answers():
            return []
        now = {node.node_id: node for node in self._cluster.nodes() if carried(node.resources, self._kinds)}
        before = self._known
        for node_id in now.keys() - (before or {}).keys():
            if self._preflight is None:
                self._good.add(node_id)
            else:
                self._preflight.ask(now[node_id])
        if before is not None:
            self.joined += len(now.keys() - before.keys())
            self.gone += len(before.keys() - now.keys())
        self._known = now
        self._good &= now.keys()
        return self._heard()

    def look_at_all(self) -> list[Notice]:
        """The same at the start: until all have answered, or soon after one is good."""
        notices = self.look()
        patient = time.monotonic() + _PATIENCE_SECONDS
        while self.unanswered and not (self._good and time.monotonic() > patient):
            notices += self._heard(timeout=0.2)
        return notices

    @property
    def unanswered(self) -> int:
        return self._preflight.waiting if self._preflight else 0

    def good(self, kind: Shape) -> list[Node]:
        """Those where a worker of that kind may be started, once there is room."""
        known = self._known or {}
        return [
            known[node_id]
            for node_id in sorted(self._good)
            if (node_id, kind.kind) not in self._left_out and not known[node_id].leaving
        ]

    @property
    def capacity(self) -> int:
        """How many workers those carry that are good, or may be, free or not."""
        first = self._kinds[0].kind
        able = (node for node in (self._known or {}).values() if (node.node_id, first) not in self._left_out)
        return sum(carried(node.resources, self._kinds) for node in able)

    @property
    def left_out(self) -> list[str]:
        """Which are, and why."""
        return list(dict.fromkeys(self._left_out.values()))

    def started(self, node_id: str, kind: Shape) -> None:
        """A worker there is ready."""
        del self._failed_starts[node_id, kind.kind]

    def start_failed(self, node_id: str, kind: Shape, cause: str, *, for_good: bool = False) -> list[Notice]:
        """A worker there was not to be had: after some in a row, or where that is `for_good`, no other is
        tried."""
        place = node_id, kind.kind
        self._failed_starts[place] += MAX_FAILED_STARTS if for_good else 1
        node = (self._known or {}).get(node_id)
        if node is None or place in self._left_out or self._failed_starts[place] < MAX_FAILED_STARTS:
            return []
        one_of = "" if len(self._kinds) == 1 else f" of {kind}"
        return [self._leave_out(node, [kind], f"workers{one_of} do not start there: {cause}")]

    @property
    def hopeless(self) -> list[str]:
        """Why no worker starts on any machine, one by one; empty while one may."""
        if self._known is None or self.unanswered:
            return []
        able = [
            (node_id, kind.kind)
            for node_id, node in self._known.items()
            for kind in self._kinds
            if kind.fits(node.resources)
        ]
        reasons = [self._left_out.get(place, "") for place in able]
        return list(dict.fromkeys(reasons)) if all(reasons) else []

    def told(self, ready: int, workers: int, *, asked: int) -> str:
        """In words, with so many workers that are ready, of all that there are, and room asked for others."""
        count, wanted = len(self._good), workers + asked
        changes = [(self.joined, "joined"), (self.gone, "gone"), (self.unanswered, "being looked at")]
        said = ", ".join(f"{number} {what}" for number, what in changes if number)
        text = f"{ready} of {wanted} workers on {count} machine{'s' if count != 1 else ''}"
        text += f" ({said})" if said else ""
        if asked:
            text += f", room for {asked} asked of the cluster"
        return text if wanted or not count else f"{text}, where others use all there is"

    def _heard(self, timeout: float = 0.0) -> list[Notice]:
        notices: list[Notice] = []
        for node, found in self._preflight.answers(timeout) if self._preflight else ():
            if node.node_id in (self._known or {}):
                notices += self._judged(node, found)
        return notices

    def _judged(self, node: Node, found: Findings) -> Iterable[Notice]:
        if found.faults:
            yield self._leave_out(node, self._kinds, "; ".join(found.faults))
            return
        self._good.add(node.node_id)
        yield from (Notice(f"warning: {note}") for note in found.notes)

    def _leave_out(self, node: Node, kinds: Sequence[Shape], why: str) -> Notice:
        for kind in kinds:
            self._left_out[node.node_id, kind.kind] = f"{node.name}: {why}"
        return Notice(f"{node.name} is left out: {why}")
