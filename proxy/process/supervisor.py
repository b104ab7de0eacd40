"""Several workers on one set of listening sockets: starts them, restarts those that end, passes signals on to them and
collects their status.

The supervisor opens the sockets and the workers inherit them, so an address in use is one error in one place, and
connections that arrive while a worker is being replaced are accepted by the others. ``control_channel`` is how it talks
to each worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.counts import Counts
from proxy import logs
from proxy.process.control_channel import ControlChannel
from proxy.process.internal_errors import InternalErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

RESTART_DELAY = 0.2
"""Seconds before a worker that ended is started again. Each delay is twice the one before it."""
MAX_RESTART_DELAY = 10.0
"""Seconds. A worker that lived that long is started again after ``RESTART_DELAY``."""
KILL_DELAY = 20.0
"""Seconds beyond ``shutdown_timeout`` after which a worker that has not ended is killed. Workers end by themselves when
``shutdown_timeout`` is over."""

log = logs.get()


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """A worker's number and the file descriptors it inherits, as text on its command line."""

    index: int
    channel: int
    """The worker's end of its control channel."""
    listeners: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.index}:{self.channel}:{','.join(map(str, self.listeners))}"

    @classmethod
    def parse(cls, text: str) -> WorkerSlot:
        """Raises ValueError."""
        index, channel, listeners = text.split(":")
        return cls(int(index), int(channel), tuple(map(int, listeners.split(","))))

    def open_channel(self) -> socket.socket:
        """The worker's end of its control channel. Call once: the socket owns the descriptor."""
        return socket.socket(fileno=self.channel)

    def open_listeners(self) -> list[socket.socket]:
        """The listening sockets. Call once: the sockets own the descriptors."""
        listeners = [socket.socket(fileno=descriptor) for descriptor in self.listeners]
        for listener in listeners:
            listener.setblocking(False)
        return listeners


def command(*arguments: str) -> list[str]:
    """``python -m proxy`` with these arguments, of this very installation wherever the current directory is."""
    root = str(Path(__file__).resolve().parents[2])
    start = f"import sys; sys.path.insert(0, {root!r}); from proxy.__main__ import main; main()"
    return [sys.executable, "-P", "-c", start, *arguments]


class _WorkerProcess:
    """One of the workers: the process that runs as it at the moment, and the channel to that process."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: asyncio.subprocess.Process | None = None
        self.channel: ControlChannel | None = None

    async def status(self) -> dict[str, Any] | None:
        """See ``ControlChannel.status``; None also while no process runs."""
        return None if self.channel is None else await self.channel.status()

    def send_signal(self, number: int) -> None:
        """Send the process a signal, if it has not ended."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """Runs ``workers`` processes of ``worker_command`` until told to stop.

    To each command ``--worker SLOT`` is added, see ``WorkerSlot``. The listeners belong to the caller, who may close
    them after ``stop``.
    """

    def __init__(
        self,
        worker_command: Sequence[str],
        workers: int,
        listeners: Sequence[socket.socket],
        *,
        shutdown_timeout: float,
    ) -> None:
        self.counts = Counts()
        """What this process counts itself. A worker that ends though it was not told to is an internal error of
        ``worker``: what it counted has ended with it."""
        self.internal_error = InternalErrors(self.counts)
        self._command = list(worker_command)
        self._listeners = [listener.fileno() for listener in listeners]
        self._workers = [_WorkerProcess(index) for index in range(workers)]
        self._kill_timeout = shutdown_timeout + KILL_DELAY
        self._stopping = asyncio.Event()
        self._stop_signals = 0
        self._reloads: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Keep the workers running until ``stop``. Returns the exit status: 0 if every worker ended with status 0."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._keep_running(worker), name=f"worker {worker.index}") for worker in self._workers
            ]
        return max(task.result() for task in tasks)

    def stop(self) -> None:
        """Let the workers drain; called again, let them stop at once."""
        self._stopping.set()
        self._stop_signals += 1
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)

    def reload(self) -> None:
        """Let every worker read its configuration again: one that is still starting as soon as it handles SIGHUP."""
        for worker in self._workers:
            task = asyncio.get_running_loop().create_task(self._reload(worker), name=f"reload {worker.index}")
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def _reload(self, worker: _WorkerProcess) -> None:
        # SIGHUP ends a process that does not handle it yet. A worker that answers does.
        process = worker.process
        if await worker.status() is not None and worker.process is process:
            worker.send_signal(signal.SIGHUP)

    async def statuses(self, seconds: float = 1.0) -> list[dict[str, Any] | None]:
        """Each worker's status, in order; None for one that has ended or does not answer within ``seconds``."""
        return list(await asyncio.gather(*(self._status(worker, seconds) for worker in self._workers)))

    async def _status(self, worker: _WorkerProcess, seconds: float) -> dict[str, Any] | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await worker.status()
        return None

    async def _keep_running(self, worker: _WorkerProcess) -> int:
        """Start ``worker`` again whenever it ends. Returns the status of its last process."""
        delay = RESTART_DELAY
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._run_once(worker)
            if self._stopping.is_set():
                # SIGTERM itself ends a process that is still starting and does not handle it yet.
                return 0 if status in (0, -signal.SIGTERM) else 1
            if time.monotonic() - started > MAX_RESTART_DELAY:
                delay = RESTART_DELAY
            self.counts.internal_error("worker")
            log.error("worker process ends unexpectedly", worker=worker.index, status=status, restart_in=delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
                return 1
            delay = min(2 * delay, MAX_RESTART_DELAY)
        return 0

    async def _run_once(self, worker: _WorkerProcess) -> int:
        """Start one process and wait for its end. Returns its status; a negative number is the signal it ended by."""
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = [theirs.fileno(), *self._listeners]
            slot = WorkerSlot(worker.index, theirs.fileno(), tuple(self._listeners))
            worker.process = await asyncio.create_subprocess_exec(
                *self._command,
                "--worker",
                str(slot),
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                # Ctrl-C is sent to the whole foreground process group: the workers get it from the supervisor, once.
                start_new_session=True,
            )
        # ``stop`` may have been called while the process was being made.
        for _ in range(min(self._stop_signals, 2)):
            worker.send_signal(signal.SIGTERM)
        worker.channel = await ControlChannel.open(ours, self.internal_error)
        try:
            return await self._wait_for_end(worker.process)
        finally:
            worker.channel.close()
            worker.channel = None

    async def _wait_for_end(self, process: asyncio.subprocess.Process) -> int:
        """The status ``process`` ends with. After ``stop`` it is killed if it does not end in time."""
        stopped = asyncio.ensure_future(self._stopping.wait())
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait((ended,), timeout=self._kill_timeout)
            if not ended.done():
                log.error("supervisor kills a worker that does not stop", pid=process.pid)
                process.kill()
            return await ended
        finally:
            stopped.cancel()
            if not ended.done():
                process.kill()
                ended.cancel()


def cores() -> int:
    """How many workers ``workers = "auto"`` means: the cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
