"""The worker or workers of one ``rowtap serve``, and what the admin endpoint says about them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, cast

from proxy import metrics
from proxy.process.readiness import Readiness
from proxy.version import version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.config.sections import PostgresSection
    from proxy.process.supervisor import Supervisor
    from proxy.process.worker import Worker


class WorkerGroup(Protocol):
    """The workers that the admin endpoint answers for."""

    @property
    def size(self) -> int:
        """How many there should be."""

    @property
    def draining(self) -> bool:
        """No new session is accepted any more."""

    @property
    def internal_errors(self) -> Mapping[str, int]:
        """What this process counted that is in no worker's snapshot."""

    async def snapshots(self) -> list[metrics.Snapshot]:
        """Those of the workers that answer."""


class SingleWorker:
    """A worker in this process."""

    size = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.internal_errors: Mapping[str, int] = {}
        """None: this process's are in its worker's snapshot."""

    @property
    def draining(self) -> bool:
        """See ``WorkerGroup``."""
        return self._worker.draining

    async def snapshots(self) -> list[metrics.Snapshot]:
        """See ``WorkerGroup``."""
        return [self._worker.snapshot()]


class SupervisedWorkers:
    """Workers in processes of their own."""

    def __init__(self, supervisor: Supervisor, size: int) -> None:
        self._supervisor = supervisor
        self.size = size
        self.draining = False
        """Set by the caller that tells the supervisor to stop."""

    @property
    def internal_errors(self) -> Mapping[str, int]:
        """See ``WorkerGroup``."""
        return self._supervisor.counts.internal_errors

    async def snapshots(self) -> list[metrics.Snapshot]:
        """See ``WorkerGroup``."""
        statuses = await self._supervisor.statuses()
        return [cast("metrics.Snapshot", status) for status in statuses if status is not None]


class WorkerGroupReports:
    """The ``AdminReports`` of a group of workers."""

    def __init__(self, postgres: PostgresSection, group: WorkerGroup) -> None:
        self._group = group
        self._started = time.monotonic()
        self._readiness = Readiness(postgres)

    async def status(self) -> Mapping[str, object]:
        """See ``AdminReports``."""
        snapshots = await self._group.snapshots()
        status = metrics.status(
            snapshots, version=version(), started=self._started, other_internal_errors=self._group.internal_errors
        )
        if len(snapshots) < self._group.size and not self._group.draining:
            # A worker that does not answer may have pending changes: the sum over the others is not the number of all.
            status["pending_changes"] = None
        status["postgres"] = "down" if await self._readiness.why_not() else "up"
        return status

    async def not_ready(self) -> list[str]:
        """See ``AdminReports``."""
        snapshots = await self._group.snapshots()
        reasons = ["draining: no new sessions are accepted"] if self._group.draining else []
        if len(snapshots) < self._group.size:
            reasons.append(f"{self._group.size - len(snapshots)} of {self._group.size} workers do not answer")
        if not all(snapshot["redis_up"] for snapshot in snapshots):
            reasons.append("Redis cannot be reached")
        why_not = await self._readiness.why_not()
        return [*reasons, why_not] if why_not else reasons

    async def metrics(self) -> bytes:
        """See ``AdminReports``."""
        return metrics.render(
            await self._group.snapshots(), version=version(), other_internal_errors=self._group.internal_errors
        )
