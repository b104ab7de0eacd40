"""A server as a subprocess: its directory and log; starting it until it answers, stopping and killing it; and removing
all it leaves.

What the servers of `proxy/demo/servers.py` have in common.
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


_PORT_STEP = 32
_recent_ports: collections.deque[int] = collections.deque(maxlen=100)
"""Ports that `free_port` returned last, whose servers may not listen yet."""


class EmbeddedError(Exception):
    """A server could not be found, started or stopped. The message says what to do and ends with the server's log."""


def free_port() -> int:
    """A TCP port on which no process listens, below the range of ports that outgoing connections get.

    A port of that range could be taken by an outgoing connection while its server is stopped. Processes that call this
    at the same time, such as the workers of a run of tests, choose among different ports.
    """
    choice = random.SystemRandom()
    for _ in range(200):
        port = choice.randrange(20000 + os.getpid() % _PORT_STEP, 32000, _PORT_STEP)
        if port in _recent_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _recent_ports.append(port)
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
        self._may_change_port = port is None
        self.port = port if port is not None else free_port()
        self._own_directories: list[Path] = []
        self.directory = self._make_directory() if directory is None else directory
        self.log_path = self.directory / "server.log"
        self._cwd = self.directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """The process has not ended. It may be suspended."""
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
        self._wait_for_end()
        for attempts_left in reversed(range(5)):
            try:
                self._start_once()
                self._may_change_port = False  # Clients may know the port from now on.
                return
            except EmbeddedError as error:
                if not attempts_left or not self._may_change_port or self.port_taken not in str(error):
                    raise
                self.port = free_port()  # Another process has taken the port since it was chosen.

    def stop(self) -> None:
        """Send `stop_signal`, and SIGKILL if that takes too long. The directory stays, for `start`."""
        self._stop(self.stop_signal)

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would."""
        if self.running:
            self._kill_all()
        self._wait_for_end()

    def restart(self) -> None:
        """Stop and start again on the same port and directory."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the directories made here, but not one that the caller gave."""
        try:
            self.stop()
        finally:
            for path in self._own_directories:
                shutil.rmtree(path, ignore_errors=True)
                REAPER.release_directory(path)
            self._own_directories.clear()

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
        """The command to run. Writes the files that the command reads."""

    @abc.abstractmethod
    def _answers(self, pid: int) -> bool:
        """Whether the server accepts clients, and is this process and not another one that has taken the port."""

    def _account(self) -> Account | None:
        return None

    def _kill_all(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _make_directory(self) -> Path:
        path = Path(tempfile.mkdtemp(prefix="rowtap-", dir=self._temporary_directory()))
        self._own_directories.append(path)
        REAPER.adopt_directory(path)
        return path

    def _temporary_directory(self) -> Path:
        """The system's directory for temporary files; /tmp if the path of a socket in it would be too long, or if the
        server's account cannot reach it, as with a private one of root's."""
        account = self._account()
        default = Path(tempfile.gettempdir())
        fits = len(os.fsencode(default)) + len("/rowtap-12345678/.s.PGSQL.65535") <= SUN_PATH
        if fits and (account is None or account.can("-x", default)):
            return default
        return Path("/tmp")  # noqa: S108 - the directory made in it has a random name and is for its owner

    def _start_once(self) -> None:
        log_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = popen(self._command(), self._account(), cwd=self._cwd, log=log.fileno())
        REAPER.adopt_process(self._process.pid, self.orphan_signal)
        deadline = time.monotonic() + _START_TIMEOUT
        try:
            while not self._answers(self._process.pid):
                if self._process.poll() is not None:
                    raise EmbeddedError(
                        f"{self.title} ended with status {self._process.returncode}{self._log_tail(log_offset)}"
                    )
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"{self.title} did not answer within {_START_TIMEOUT:g} s{self._log_tail(log_offset)}"
                    )
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
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        if self._process is not None:
            self._process.wait()
            REAPER.release_process(self._process.pid)
            self._process = None

    def _log_tail(self, log_offset: int) -> str:
        lines = self.log_path.read_bytes()[log_offset:].decode(errors="replace").splitlines()[-15:]
        return "; its log says:\n  " + "\n  ".join(lines) if lines else "; it logged nothing"


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that PostgreSQL runs under if this process is root's: it refuses to run as root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def needed(cls) -> Account | None:
        """The account to use; None if this process is not root's."""
        if os.geteuid() != 0:
            return None
        for name in ("nobody", "postgres", "daemon"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(name, entry.pw_uid, entry.pw_gid)
        raise EmbeddedError("PostgreSQL does not run as root, and none of the accounts nobody, postgres, daemon exists")

    def can(self, flag: Literal["-x", "-w"], path: Path) -> bool:
        """Whether the account can execute `path` (enter it, for a directory) or write it: `test` run as the account."""
        command = ["/bin/sh", "-c", f'test {flag} "$1"', "sh", str(path)]
        return popen(command, self, cwd=Path("/")).wait() == 0


def popen(
    command: Sequence[str], account: Account | None, *, cwd: Path, log: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a command as `account`, if there is one, in a session of its own, which a terminal's Ctrl-C does not
    reach."""
    # The caller's PG… and ROWTAP_… variables would be settings of the server.
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
        as_account = f" as {account.name}" if account else ""
        raise EmbeddedError(f"cannot run {command[0]}{as_account}: {error.strerror or error}") from error


def run(command: Sequence[str], account: Account | None, cwd: Path) -> None:
    """Run a command to its end. EmbeddedError with all its output if it fails."""
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
                # pid (name) state ppid …, where the name may have spaces and parentheses in it.
                table.append(
                    (int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[1]))
                )
    else:
        listing = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        table = [(int(pid), int(ppid)) for pid, ppid in (line.split() for line in listing.stdout.splitlines())]
    return [pid for pid, ppid in table if ppid == parent]
