"""How the suite is given out to workers: by file, as ``--dist loadfile`` does, and without end.

A test that takes too long ends its worker. xdist's own scheduler gives that test to the next worker
again and again, and lets a worker wait for ever that was given a single test. It also begins with
the files of most tests, which leaves those few that take longest for the end, to one worker each.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

PROGRAMS = tuple(f"tests/{room}/" for room in ("acp", "bench", "cli", "neuron/system", "system"))
"""Rooms whose tests start programs, and so take long by the test."""


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """A file's tests stay with one worker; what has ended one is not run again."""

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker has ended; what it had not begun goes to others."""
        workload = self.assigned_work.pop(node)
        tests = [test for unit in workload.values() for test, done in unit.items() if not done]
        crashed: str | None = next(iter(tests), None)
        if crashed is None:
            return None
        for unit in workload.values():
            if crashed in unit:
                unit[crashed] = True
        self.workqueue.update(
            {scope: unit for scope, unit in workload.items() if not all(unit.values())}
        )
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Give a worker the next file: those that take long first, and the end is shared."""
        first = min(
            self.workqueue,
            key=lambda file: (not file.startswith(PROGRAMS), -len(self.workqueue[file])),
        )
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a worker enough to go on: it begins a test when it knows the next, or the end."""
        if node.shutting_down or node not in self.registered_collections:
            return
        while self.workqueue and self._pending_of(self.assigned_work[node]) <= 2:
            self._assign_work_unit(node)
        if not self.workqueue:
            node.shutdown()
