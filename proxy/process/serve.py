"""``rowtap serve``: one worker in this process, or a supervisor with several; signals and the admin endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Protocol, cast

import uvloop

from proxy import logs, metrics
from proxy.config.os_errors import reason_of
from proxy.net import listeners
from proxy.net.listeners import ListenError
from proxy.net.tls import TlsError
from proxy.process import supervisor
from proxy.process.admin import Admin
from proxy.process.readiness import Readiness
from proxy.process.supervisor import Place, Supervisor
from proxy.process.worker import Worker
from proxy.version import version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from proxy.config.load import Config

log = logs.get()


class Crew(Protocol):
    """The worker or workers the admin endpoint speaks for."""

    @property
    def draining(self) -> bool: ...

    async def snapshots(self) -> list[metrics.Snapshot]: ...


class _One:
    """A single worker, in this process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def draining(self) -> bool:
        return self._worker.draining

    async def snapshots(self) -> list[metrics.Snapshot]:
        return [self._worker.snapshot()]


class _Many:
    """The supervisor's workers."""

    def __init__(self, found: Supervisor) -> None:
        self._supervisor = found
        self.draining = False

    async def snapshots(self) -> list[metrics.Snapshot]:
        answers = await self._supervisor.statuses()
        return [cast("metrics.Snapshot", answer) for answer in answers if answer is not None]


class Answers:
    """The admin endpoint's answers about a crew."""

    def __init__(self, config: Config, crew: Crew, workers: int) -> None:
        self._crew = crew
        self._workers = workers
        self._started = time.monotonic()
        self._readiness = Readiness(config.postgres)

    async def status(self) -> Mapping[str, object]:
        """See ``admin.Source``."""
        snapshots = await self._crew.snapshots()
        found = metrics.status(snapshots, version=version(), started=self._started)
        if len(snapshots) < self._workers and not self._crew.draining:
            # A worker that does not answer may have some: nobody may take the others' 0 for all.
            found["pending_changes"] = None
        found["postgres"] = "down" if await self._readiness.why_not() else "up"
        return found

    async def not_ready(self) -> list[str]:
        """See ``admin.Source``."""
        snapshots = await self._crew.snapshots()
        reasons = ["draining: no new sessions are accepted"] if self._crew.draining else []
        if len(snapshots) < self._workers:
            reasons.append(f"{self._workers - len(snapshots)} of {self._workers} workers do not answer")
        if not all(one["redis_up"] for one in snapshots):
            reasons.append("Redis cannot be reached")
        why_not = await self._readiness.why_not()
        return [*reasons, why_not] if why_not else reasons

    async def metrics(self) -> bytes:
        """See ``admin.Source``."""
        return metrics.render(await self._crew.snapshots(), version=version())


def serve(config: Config, *, command: Sequence[str] = (), place: str | None = None) -> int:
    """Run until SIGTERM. Returns the exit status.

    Args:
        command: the arguments this process was started with, for workers to be started alike.
        place: given to a worker by its supervisor; see ``supervisor.Place``.
    """
    workers = supervisor.cores() if config.proxy.workers == "auto" else config.proxy.workers
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if place is not None:
                return runner.run(_serve_as_worker(config, Place.parse(place), workers))
            if workers == 1:
                return runner.run(_serve_alone(config))
            return runner.run(_supervise(config, workers, command))
    except (ListenError, TlsError) as error:
        log.error(str(error))
        return 1


async def _serve_alone(config: Config) -> int:
    opened = listeners.listen(config.proxy.listen)
    try:
        worker = Worker(config, opened)

        def stop() -> None:
            worker.stop()
            # New clients are refused at once instead of waiting unheard, and a successor can have the address.
            listeners.close(opened)

        async with _admin(config, _One(worker), 1):
            with supervisor.signals(stop=stop, reload=worker.reload):
                _announce(config, 1)
                await worker.run()
    finally:
        listeners.close(opened)
    log.info("stopped")
    return 0


async def _serve_as_worker(config: Config, place: Place, workers: int) -> int:
    opened = place.sockets()
    worker = Worker(config, opened, index=place.index, workers=workers)

    def stop() -> None:
        worker.stop()
        for listener in opened:
            listener.close()

    channel = asyncio.create_task(supervisor.answer(place.channel, worker.snapshot, stop), name="channel")
    try:
        with supervisor.signals(stop=stop, reload=worker.reload):
            await worker.run()
    finally:
        channel.cancel()
        await asyncio.gather(channel, return_exceptions=True)
        stop()
    return 0


async def _supervise(config: Config, workers: int, command: Sequence[str]) -> int:
    opened = listeners.listen(config.proxy.listen)
    try:
        crew = Supervisor(supervisor.command(*command), workers, opened, shutdown_timeout=config.proxy.shutdown_timeout)
        many = _Many(crew)

        def stop() -> None:
            many.draining = True
            crew.stop()
            # The workers close theirs: then nobody listens, and a successor can have the address.
            listeners.close(opened)

        async with _admin(config, many, workers):
            with supervisor.signals(stop=stop, reload=crew.reload):
                _announce(config, workers)
                status = await crew.run()
    finally:
        listeners.close(opened)
    log.info("stopped")
    return status


@contextlib.asynccontextmanager
async def _admin(config: Config, crew: Crew, workers: int) -> AsyncIterator[None]:
    address = config.admin.listen
    if address is None:
        yield
        return
    admin = Admin(Answers(config, crew, workers))
    try:
        await admin.start(address)
    except OSError as error:
        raise ListenError(
            f"{address} cannot be listened on: {reason_of(error)}; "
            "stop what listens there or set admin.listen to another address"
        ) from None
    try:
        yield
    finally:
        await admin.close()


def _announce(config: Config, workers: int) -> None:
    log.info(
        "listening",
        on=", ".join(str(address) for address in config.proxy.listen),
        postgres=str(config.postgres),
        redis=config.redis.safe_url,
        tables=len(config.rules()),
        workers=workers,
    )
