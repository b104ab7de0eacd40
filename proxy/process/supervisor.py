"""Several workers on one set of listening sockets: starts them, restarts the dead, passes signals on, gathers status.

The supervisor opens the sockets and the workers inherit them, so an address in use is one error in one place, and
connections that wait while a worker is replaced are taken by its neighbours. Each worker holds one end of a socket
pair: asked over it, it answers with a line of JSON; its end tells a worker that the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from proxy import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
"""Seconds before a dead worker is started again: doubled each time, forgotten once a worker lived that long."""
MAX_ANSWER = 16_777_216
"""Longest status line, in bytes."""

log = logs.get()


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker inherits; on its command line in the form ``str`` gives."""

    index: int
    channel: int
    listeners: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.index}:{self.channel}:{','.join(map(str, self.listeners))}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises ValueError."""
        index, channel, listeners = text.split(":")
        return cls(int(index), int(channel), tuple(map(int, listeners.split(","))))

    def sockets(self) -> list[socket.socket]:
        """The listening sockets. Call once."""
        found = [socket.socket(fileno=fd) for fd in self.listeners]
        for listener in found:
            listener.setblocking(False)
        return found


def command(*arguments: str) -> list[str]:
    """``python -m proxy`` with these arguments, of this very installation wherever the current directory is."""
    root = str(Path(__file__).resolve().parents[2])
    start = f"import sys; sys.path.insert(0, {root!r}); from proxy.__main__ import main; main()"
    return [sys.executable, "-P", "-c", start, *arguments]


class _Worker:
    """One place among the workers, and the process that fills it at the moment."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: asyncio.subprocess.Process | None = None
        self.lines: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.asking = asyncio.Lock()
        self.owed = 0
        """Questions without their answer."""
        self.restarts = 0

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A new process has taken the place."""
        self.lines = reader, writer
        self.owed = 0

    async def ask(self) -> dict[str, Any] | None:
        """Its status, or None if it is not there to tell. May be cancelled; the next one waits for the late answer."""
        async with self.asking:
            if self.lines is None:
                return None
            reader, writer = self.lines
            try:
                # A late answer must not be taken for the next question's, nor for the end: a worker that is still
                # starting, or busy, is not to be given up.
                while self.owed:
                    if not await reader.readline():
                        return None
                    self.owed -= 1
                writer.write(b"status\n")
                self.owed += 1
                line = await reader.readline()
                self.owed -= 1
                return cast("dict[str, Any]", json.loads(line))
            except (OSError, ValueError):
                return None

    def hang_up(self) -> None:
        if self.lines is not None:
            self.lines[1].close()
            self.lines = None


class Supervisor:
    """Runs ``workers`` processes of ``worker_command`` until told to stop.

    To each command ``--worker PLACE`` is added, see ``Place``. The listeners are the caller's; after ``stop`` they
    may be closed.
    """

    def __init__(
        self,
        worker_command: Sequence[str],
        workers: int,
        listeners: Sequence[socket.socket],
        *,
        shutdown_timeout: float,
    ) -> None:
        self._command = list(worker_command)
        self._listeners = [listener.fileno() for listener in listeners]
        self._workers = [_Worker(index) for index in range(workers)]
        # Workers end by themselves at their own deadline; this is for those that cannot.
        self._patience = shutdown_timeout + 20.0
        self._stopping = asyncio.Event()
        self._signals = 0
        self._reloading: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Until ``stop``. Returns the exit status: 0 if every worker ended well."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._keep(worker), name=f"worker {worker.index}") for worker in self._workers]
        return max(task.result() for task in tasks)

    def stop(self) -> None:
        """Let the workers drain; called again, let them stop at once."""
        self._stopping.set()
        self._signals += 1
        self._send(signal.SIGTERM)

    def reload(self) -> None:
        """Let every worker read its configuration again, one that is still starting as soon as it can hear it."""
        for worker in self._workers:
            task = asyncio.get_running_loop().create_task(self._reload(worker), name=f"reload {worker.index}")
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)

    async def _reload(self, worker: _Worker) -> None:
        # SIGHUP would end a process that does not handle it yet; one that tells its status does.
        process = worker.process
        if process is not None and await worker.ask() is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    @property
    def restarts(self) -> int:
        """Workers that died and were replaced so far."""
        return sum(worker.restarts for worker in self._workers)

    async def statuses(self, patience: float = 1.0) -> list[dict[str, Any] | None]:
        """What each worker says of itself, in order; None for one that is dead or does not answer in time."""
        return list(await asyncio.gather(*(self._status(worker, patience) for worker in self._workers)))

    async def _status(self, worker: _Worker, patience: float) -> dict[str, Any] | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await worker.ask()
        return None

    def _send(self, number: int) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(number)

    async def _keep(self, worker: _Worker) -> int:
        """One worker's place, filled again whenever it gets empty; the status of the last."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._run_once(worker)
            if self._stopping.is_set():
                # One that is told to stop while it is still being started ends by the signal itself.
                return 0 if status in (0, -signal.SIGTERM) else 1
            worker.restarts += 1
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.error("worker ended unexpectedly", worker=worker.index, status=status, restart_in=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return 1
            pause = min(2 * pause, LONGEST_PAUSE)
        return 0

    async def _run_once(self, worker: _Worker) -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = [theirs.fileno(), *self._listeners]
            place = Place(worker.index, inherited[0], tuple(self._listeners))
            worker.process = await asyncio.create_subprocess_exec(
                *self._command,
                "--worker",
                str(place),
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                # Ctrl-C reaches everybody in the foreground; the workers hear of it from us, and once.
                start_new_session=True,
            )
        # A signal that came while the process was being made has not reached it.
        for _ in range(min(self._signals, 2)):
            worker.process.send_signal(signal.SIGTERM)
        worker.meet(*await asyncio.open_unix_connection(sock=ours, limit=MAX_ANSWER))
        try:
            return await self._outlive(worker.process)
        finally:
            worker.hang_up()

    async def _outlive(self, process: asyncio.subprocess.Process) -> int:
        stopped = asyncio.ensure_future(self._stopping.wait())
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait((ended,), timeout=self._patience)
            if not ended.done():
                log.error("worker did not stop, killed", pid=process.pid)
                process.kill()
            return await ended
        finally:
            stopped.cancel()
            if not ended.done():
                process.kill()
                ended.cancel()


async def answer(channel: int, status: Callable[[], Mapping[str, Any]], orphaned: Callable[[], None]) -> None:
    """A worker's side of its channel: answer questions for ``status`` until the supervisor is gone, then say so."""
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=channel))
    try:
        while await reader.readline():
            writer.write(json.dumps(status()).encode() + b"\n")
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
    orphaned()


@contextlib.contextmanager
def signals(*, stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call ``stop``, each time they come; SIGHUP calls ``reload``. To be used in a running loop."""
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def cores() -> int:
    """How many workers ``workers = "auto"`` means: the cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
