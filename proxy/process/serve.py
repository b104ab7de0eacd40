"""``rowtap serve``: one worker in this process, or a supervisor with several; signals and the admin endpoint."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import uvloop

from proxy import logs
from proxy.config.os_errors import reason_of
from proxy.net import listeners
from proxy.net.listeners import ListenError
from proxy.net.tls import TlsError
from proxy.process.admin import Admin
from proxy.process.control_channel import answer_status
from proxy.process.signals import handle_signals
from proxy.process.supervisor import Supervisor, WorkerSlot, command, cores
from proxy.process.worker import Worker
from proxy.process.worker_group import SingleWorker, SupervisedWorkers, WorkerGroupReports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from proxy.config.load import Config
    from proxy.process.internal_errors import InternalErrors
    from proxy.process.worker_group import WorkerGroup

log = logs.get()


def run(config: Config, *, arguments: Sequence[str] = (), slot: str | None = None) -> int:
    """Serve until SIGTERM. Returns the exit status: 0 after an orderly end.

    Args:
        arguments: of the command line this process was started with, for workers to be started with the same.
        slot: the text of a ``WorkerSlot``, given to a worker by its supervisor.
    """
    workers = cores() if config.proxy.workers == "auto" else config.proxy.workers
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if slot is not None:
                return runner.run(_serve_as_worker(config, WorkerSlot.parse(slot), workers))
            if workers == 1:
                return runner.run(_serve_alone(config))
            return runner.run(_supervise(config, workers, arguments))
    except (ListenError, TlsError) as error:
        log.error(str(error))
        return 1


async def _serve_alone(config: Config) -> int:
    opened = listeners.listen(config.proxy.listen)
    try:
        worker = Worker(config, opened)
        worker.internal_error.watch(asyncio.get_running_loop())

        def stop() -> None:
            worker.stop()
            # New clients are refused at once instead of waiting to be accepted, and the next process can listen here.
            listeners.close(opened)

        async with _admin_endpoint(config, SingleWorker(worker), worker.internal_error):
            with handle_signals(stop=stop, reload=worker.reload):
                _log_listening(config, 1)
                status = await worker.run()
    finally:
        listeners.close(opened)
    log.info("proxy ends", status=status)
    return status


async def _serve_as_worker(config: Config, slot: WorkerSlot, workers: int) -> int:
    opened = slot.open_listeners()
    worker = Worker(config, opened, index=slot.index, workers=workers)
    worker.internal_error.watch(asyncio.get_running_loop())

    def stop() -> None:
        worker.stop()
        for listener in opened:
            listener.close()

    # An exception of either ends the process, so that the supervisor starts another in its place.
    async with asyncio.TaskGroup() as group:
        channel = group.create_task(
            answer_status(slot.open_channel(), worker.snapshot, stop, worker.internal_error), name="control channel"
        )
        try:
            with handle_signals(stop=stop, reload=worker.reload):
                status = await worker.run()
        finally:
            channel.cancel()
    stop()
    return status


async def _supervise(config: Config, workers: int, arguments: Sequence[str]) -> int:
    opened = listeners.listen(config.proxy.listen)
    try:
        supervisor = Supervisor(command(*arguments), workers, opened, shutdown_timeout=config.proxy.shutdown_timeout)
        supervisor.internal_error.watch(asyncio.get_running_loop())
        group = SupervisedWorkers(supervisor, workers)

        def stop() -> None:
            group.draining = True
            supervisor.stop()
            # The workers close theirs: then no process listens here, and the next one can.
            listeners.close(opened)

        async with _admin_endpoint(config, group, supervisor.internal_error):
            with handle_signals(stop=stop, reload=supervisor.reload):
                _log_listening(config, workers)
                status = await supervisor.run()
    finally:
        listeners.close(opened)
    log.info("proxy ends", status=status)
    return status


@contextlib.asynccontextmanager
async def _admin_endpoint(config: Config, group: WorkerGroup, on_internal_error: InternalErrors) -> AsyncIterator[None]:
    address = config.admin.listen
    if address is None:
        yield
        return
    admin = Admin(WorkerGroupReports(config.postgres, group), on_internal_error)
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


def _log_listening(config: Config, workers: int) -> None:
    log.info(
        "proxy listens",
        addresses=", ".join(str(address) for address in config.proxy.listen),
        postgres=str(config.postgres),
        redis=config.redis.safe_url,
        tables=len(config.rules()),
        workers=workers,
    )
