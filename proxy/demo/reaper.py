"""Cleans up after a parent process that died: kills the servers it started, removes the directories it made.

`proxy/demo/servers.py` starts this file as a script, in a session of its own so that no Ctrl-C reaches it. Its standard
input is a pipe whose other end only the parent holds; its end of file is the parent's death, however it came, SIGKILL
included. That works on Linux and macOS alike; PR_SET_PDEATHSIG is Linux's alone and follows a thread, not a process.

Standard library only and nothing of Rowtap's: it runs with `-I -S` and is up in a few milliseconds.
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
"""Seconds between the first signal and SIGKILL. PostgreSQL kills stragglers itself 5 s into an immediate shutdown."""


class Reaper:
    """The parent's side: tells the script what to do when the parent is gone. Started at the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._script: subprocess.Popen[bytes] | None = None

    def adopt_process(self, pid: int, signum: signal.Signals) -> None:
        """On our death send `signum` to this process, and SIGKILL if that does not end it."""
        self._tell("process", pid, int(signum))

    def adopt_directory(self, path: Path) -> None:
        """On our death remove this directory, once the processes are gone."""
        self._tell("directory", str(path), 0)

    def release_process(self, pid: int) -> None:
        """The process has been waited for: its number may be another's soon."""
        self._tell("process", pid, None)

    def release_directory(self, path: Path) -> None:
        """The directory has been removed."""
        self._tell("directory", str(path), None)

    def close(self) -> None:
        """End the script; what has not been released is cleaned up first."""
        with self._lock:
            script, self._script = self._script, None
        if script is not None:
            script.communicate()

    def _tell(self, kind: str, name: int | str, signum: int | None) -> None:
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
"""The one of this process."""


def watch(lines: Iterable[bytes]) -> None:
    """Follow the parent's lines to their end, then clean up what it left."""
    left: dict[str, dict[int | str, int]] = {"process": {}, "directory": {}}
    for line in lines:
        if not line.endswith(b"\n"):
            break  # the parent died in the middle of it
        kind, name, signum = json.loads(line)
        if signum is None:
            left[kind].pop(name, None)
        else:
            left[kind][name] = signum
    _end({int(pid): signum for pid, signum in left["process"].items()})
    for path in left["directory"]:
        shutil.rmtree(str(path), ignore_errors=True)


def _end(processes: dict[int, int]) -> None:
    for pid, signum in processes.items():
        _signal(pid, signum)
        _signal(pid, signal.SIGCONT)  # a stopped process would sleep through the first one
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
    except (
        ProcessLookupError,
        PermissionError,
    ):  # PermissionError: the number belongs to another user's process by now
        return False
    return True


if __name__ == "__main__":
    watch(sys.stdin.buffer)
