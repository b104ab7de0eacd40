"""Processes by their ids, on every system."""

import contextlib
import os


def exists(pid):
    """Whether there is a process with this id, also if it has ended and was not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
