"""Cleans up after a parent process that has ended: ends the servers it started, removes the directories it made.

`Reaper` starts this file as a script, in a session of its own so that no Ctrl-C reaches it. Its standard input is a
pipe whose other end only the parent has: its end of file says that the parent has ended, however that happened, by
SIGKILL too. That works on Linux and on macOS; PR_SET_PDEATHSIG is Linux's only, and follows a thread instead of a
process.

Standard library only and nothing of Rowtap's: it runs with `-I -S` and starts in a few milliseconds.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_GRACE = 6.0
"""Seconds between the first signal and SIGKILL. After 5 s of an immediate shutdown PostgreSQL kills what is left of its
processes itself."""


class Reaper:
    """The parent's side: tells the script what to do when the parent has ended. Starts it when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._script: subprocess.Popen[bytes] | None = None

    def adopt_process(self, pid: int, signum: signal.Signals) -> None:
        """When this process ends, send `signum` to that one, and SIGKILL if that does not end it."""
        self._send("process", pid, int(signum))

    def adopt_directory(self, path: Path) -> None:
        """When this process ends, remove this directory, after the adopted processes have ended."""
        self._send("directory", str(path), 0)

    def release_process(self, pid: int) -> None:
        """The process has been waited for: the system may give its number to another one."""
        self._send("process", pid, None)

    def release_directory(self, path: Path) -> None:
        """The directory has been removed."""
        self._send("directory", str(path), None)

    def close(self) -> None:
        """End the script. It cleans up what has not been released first."""
        with self._lock:
            script, self._script = self._script, None
        if script is not None:
            script.communicate()

    def _send(self, kind: str, name: int | str, signum: int | None) -> None:
        line = json.dumps([kind, name, signum]).encode() + b"\n"
        with self._lock:
            if self._script is None:
                if signum is None:
                    return
                self._script = subprocess.Popen(  # noqa: S603 — our own interpreter and this very file
                    [sys.executable, "-I", "-S", __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    bufsize=0,
                    cwd="/",
                    start_new_session=True,
                )
                atexit.register(self.close)
            assert self._script.stdin is not None
            # A reaper that was killed is no reason to fail what the parent is doing.
            with contextlib.suppress(BrokenPipeError):
                self._script.stdin.write(line)


REAPER = Reaper()
"""That of this process."""


def watch(lines: Iterable[bytes]) -> None:
    """Read the parent's lines to their end, then clean up what it did not release."""
    adopted: dict[str, dict[int | str, int]] = {"process": {}, "directory": {}}
    for line in lines:
        if not line.endswith(b"\n"):
            break  # The parent ended while it wrote this line.
        kind, name, signum = json.loads(line)
        if signum is None:
            adopted[kind].pop(name, None)
        else:
            adopted[kind][name] = signum
    _end_processes({int(pid): signum for pid, signum in adopted["process"].items()})
    for path in adopted["directory"]:
        shutil.rmtree(str(path), ignore_errors=True)


def _end_processes(processes: dict[int, int]) -> None:
    for pid, signum in processes.items():
        _signal(pid, signum)
        _signal(pid, signal.SIGCONT)  # A suspended process handles the first signal only when it runs again.
    deadline = time.monotonic() + _GRACE
    alive = set(processes)
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        alive = {pid for pid in alive if _signal(pid, 0)}
    for pid in alive:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, signum: int) -> bool:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # The number belongs to another user's process by now.
    return True


if __name__ == "__main__":
    watch(sys.stdin.buffer)
