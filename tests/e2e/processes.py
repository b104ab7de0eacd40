"""What /proc says of a running process: memory, descriptors, children. And waiting for a condition."""

import contextlib
import os
import time
from pathlib import Path

import pytest

PROC = Path("/proc")
MIB = 1024 * 1024

needs_proc = pytest.mark.skipif(not (PROC / "self" / "status").exists(), reason="memory is measured in /proc")


def wait_until(condition, timeout=10.0, *, pause=0.01, why="the condition did not hold in time"):
    """Call `condition` until its result is true, and return that; fail after `timeout` seconds with `why`."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{why} (waited {timeout:g} s)")
        time.sleep(pause)
    return found


def resident(pid):
    """The process's resident memory, in bytes."""
    return _status(pid, "VmRSS")


def peak(pid):
    """The largest resident memory since `reset_peak`, in bytes."""
    return _status(pid, "VmHWM")


def reset_peak(pid):
    """Let `peak` begin again. Returns the present resident memory, in bytes."""
    (PROC / str(pid) / "clear_refs").write_text("5")
    return resident(pid)


def descriptors(pid):
    """What each open file descriptor refers to, sorted: "socket", "pipe", or a path."""
    found = []
    for entry in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()).partition(":[")[0])
    return sorted(found)


def children(pid):
    """The process IDs of the living child processes."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command stands in parentheses and may contain them; behind the last one are state and parent.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found.append(int(entry.name))
    return sorted(found)


def alive(pid):
    """Whether the process exists and is not a zombie."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _status(pid, name):
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {os.fspath(str(pid))} has no {name}")
