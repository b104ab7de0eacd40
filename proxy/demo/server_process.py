"""A server as a subprocess of ours: its directory, log, start until it answers, stop, kill, and no remains.

What is common to the servers of `proxy/demo/servers.py`, which knows the servers themselves.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from proxy.demo.reaper import REAPER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

HOST = "127.0.0.1"
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 20.0
SUN_PATH = 103
"""Bytes of a Unix socket's path that every system takes: macOS has 104 with the NUL, Linux 108."""


_SHARES = 32
_given: collections.deque[int] = collections.deque(maxlen=100)
"""Ports handed out lately, whose servers may not listen yet."""


class EmbeddedError(Exception):
    """A server could not be found, started or stopped. The message says what to do and ends with the server's log."""


def free_port() -> int:
    """A TCP port nobody listens on, below the range that outgoing connections take theirs from.

    A server that is stopped and started again on its port would otherwise find it taken now and then. Processes that
    ask at the same time, such as those that share a run of tests, choose among different ports.
    """
    choice = random.SystemRandom()
    for _ in range(200):
        port = choice.randrange(20000 + os.getpid() % _SHARES, 32000, _SHARES)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _given.append(port)
            return port
    raise EmbeddedError("no free TCP port found between 20000 and 32000")


class ServerProcess(abc.ABC):
    """One server process, its directory and its log."""

    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    orphan_signal: ClassVar[signal.Signals]
    port_taken = "Address already in use"

    def __init__(self, directory: Path | None, port: int | None) -> None:
        self.host = HOST
        self._port_is_free_choice = port is None
        self.port = port if port is not None else free_port()
        self._made: list[Path] = []
        self.directory = self._make_directory() if directory is None else directory
        self.log_path = self.directory / "server.log"
        self._cwd = self.directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """The process is there (perhaps stopped by a signal)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; EmbeddedError when there is no process."""
        if self._process is None:
            raise EmbeddedError(f"{self.title} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and return when the server answers. EmbeddedError with the end of its log when it does not."""
        if self.running:
            return
        self._forget()
        for attempts_left in reversed(range(5)):
            try:
                self._start_once()
                self._port_is_free_choice = False  # somebody may know it from now on
                return
            except EmbeddedError as error:
                if not attempts_left or not self._port_is_free_choice or self.port_taken not in str(error):
                    raise
                self.port = free_port()  # somebody was faster

    def stop(self) -> None:
        """Stop in the orderly way, and by SIGKILL when that takes too long. The directory stays, for `start`."""
        self._stop(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self.running:
            self._kill_all()
        self._forget()

    def restart(self) -> None:
        """Stop and start again on the same port and directory."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the directories made here. A directory the caller gave is the caller's."""
        try:
            self.stop()
        finally:
            for path in self._made:
                shutil.rmtree(path, ignore_errors=True)
                REAPER.release_directory(path)
            self._made.clear()

    def log_text(self) -> str:
        """All the server has logged."""
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace")
        return ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """What to run; files it reads are written by now."""

    @abc.abstractmethod
    def _answers(self, pid: int) -> bool:
        """Whether the server takes clients, and it is ours and not one that was faster on the port."""

    def _account(self) -> Account | None:
        return None

    def _kill_all(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _make_directory(self) -> Path:
        path = Path(tempfile.mkdtemp(prefix="rowtap-", dir=self._parent()))
        self._made.append(path)
        REAPER.adopt_directory(path)
        return path

    def _parent(self) -> Path:
        """The system's directory for temporary files, or /tmp where sockets in that have too long a path or the
        server's account cannot get there: root may have a private one."""
        account = self._account()
        usual = Path(tempfile.gettempdir())
        fits = len(os.fsencode(usual)) + len("/rowtap-12345678/.s.PGSQL.65535") <= SUN_PATH
        fits = fits and (account is None or account.may("-x", usual))
        return usual if fits else Path("/tmp")  # noqa: S108 - what is made there has a name of its own

    def _start_once(self) -> None:
        began = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = popen(self._command(), self._account(), cwd=self._cwd, log=log.fileno())
        REAPER.adopt_process(self._process.pid, self.orphan_signal)
        deadline = time.monotonic() + _START_TIMEOUT
        try:
            while not self._answers(self._process.pid):
                if self._process.poll() is not None:
                    raise EmbeddedError(f"{self.title} ended with status {self._process.returncode}{self._tail(began)}")
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"{self.title} did not answer within {_START_TIMEOUT:g} s{self._tail(began)}")
                time.sleep(0.01)
        except BaseException:
            self.kill()
            raise

    def _stop(self, signum: signal.Signals) -> None:
        if self._process is not None and self.running:
            os.kill(self._process.pid, signum)
            os.kill(self._process.pid, signal.SIGCONT)
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._kill_all()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None:
            self._process.wait()
            REAPER.release_process(self._process.pid)
            self._process = None

    def _tail(self, began: int) -> str:
        lines = self.log_path.read_bytes()[began:].decode(errors="replace").splitlines()[-15:]
        return "; its log says:\n  " + "\n  ".join(lines) if lines else "; it logged nothing"


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account PostgreSQL runs under when we are root, which it refuses to be."""

    name: str
    uid: int
    gid: int

    @classmethod
    def needed(cls) -> Account | None:
        """The account to use, None when we are somebody ourselves."""
        if os.geteuid() != 0:
            return None
        for name in ("nobody", "postgres", "daemon"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(name, entry.pw_uid, entry.pw_gid)
        raise EmbeddedError("PostgreSQL does not run as root, and none of the accounts nobody, postgres, daemon exists")

    def may(self, flag: Literal["-x", "-w"], path: Path) -> bool:
        """Whether the account can execute (reach, a directory) or write `path`, asked of the system itself."""
        command = ["/bin/sh", "-c", f'test {flag} "$1"', "sh", str(path)]
        return popen(command, self, cwd=Path("/")).wait() == 0


def popen(
    command: Sequence[str], account: Account | None, *, cwd: Path, log: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, as `account` when given, out of reach of a terminal's Ctrl-C."""
    # Libpq's variables and Rowtap's of the caller's would reach the server as settings.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "ROWTAP_"))}
    environment["LC_ALL"] = "C"
    try:
        return subprocess.Popen(  # noqa: S603 — commands built here, no shell reads them
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        as_whom = f" as {account.name}" if account else ""
        raise EmbeddedError(f"cannot run {command[0]}{as_whom}: {error.strerror or error}") from error


def run(command: Sequence[str], account: Account | None, cwd: Path) -> None:
    """Run a command to its end; EmbeddedError with all its output when it fails."""
    with tempfile.TemporaryFile() as output:
        status = popen(command, account, cwd=cwd, log=output.fileno()).wait()
        output.seek(0)
        if status != 0:
            text = output.read().decode(errors="replace").strip()
            raise EmbeddedError(f"{Path(command[0]).name} failed with status {status}:\n{text}")


def binary_version(binary: Path, pattern: str) -> str:
    """The first group of `pattern` in what `binary --version` prints."""
    try:
        command: list[str | Path] = [binary, "--version"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - no shell
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedError(f"{binary} does not run on this machine: {error}") from error
    found = re.search(pattern, output)
    if found is None:
        raise EmbeddedError(f"{binary} --version says {output.strip()!r}, which is no version")
    return found[1]


def children(parent: int) -> list[int]:
    """The process ids of a process's children."""
    if Path("/proc/self/stat").exists():
        table = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # pid (name, which may hold anything) state ppid …
                table.append(
                    (int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[1]))
                )
    else:
        listing = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        table = [(int(pid), int(ppid)) for pid, ppid in (line.split() for line in listing.stdout.splitlines())]
    return [pid for pid, ppid in table if ppid == parent]
