"""Which exceptions the writer expects, what became of a batch after one, and how faults of our own are reported.

What Redis, the network or the operator can cause is expected, and named here by type. Anything else is a fault of
Rowtap's own: it must never look like a Redis that is out of reach.
"""

from __future__ import annotations

import re
import time
import traceback
from typing import TYPE_CHECKING

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

if TYPE_CHECKING:
    from cache.counts import Counts, ErrorReport
    from cache.delivery.scripts import Script

OUT_OF_MEMORY = "command not allowed when used memory"
"""Part of the error reply of a Redis whose ``maxmemory`` is used up."""

EXPECTED = (RedisError, OSError, EOFError)
"""What Redis and sockets raise: error replies, lost connections, TimeoutError (which is an OSError), TLS."""
_CLOSED_TRANSPORT = re.compile(r"unable to perform operation on .*; the handler is closed")
"""What uvloop says, as a RuntimeError, of a write to a connection that was reset."""
_BAD_HOST_NAME = "'idna' codec"
"""What resolving a host name says, as a UnicodeError, of one that cannot be a name."""

_UNDONE = (
    OUT_OF_MEMORY,
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "BUSY ",
    "NOAUTH",
    "NOPERM",
    "TRYAGAIN",
    "LOADING",
    "EXECABORT",
)
"""Parts of error replies that a script gets at its first write at the latest: nothing of the batch was applied."""
_UNDONE_ERRORS = (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    ReadOnlyError,
    TryAgainError,
)
"""The same where redis-py cuts the code off the text."""

_SCRIPT_LINE = re.compile(r"user_script: ?(\d+)")
"""How an error that was raised inside a script names the line."""
_CODE = re.compile(r"[A-Z]+ ")
"""How an error reply begins that has another code than ERR, which redis-py cuts off: something Redis knows by name."""
_NOT_THE_SCRIPTS_FAULT = (
    # Redis 6.2 has the code in the middle of the text.
    *_UNDONE,
    "WRONGTYPE",
    # What the user may not do; Redis 6.2 and 7 word it in their own ways.
    "ACL failure",
    "can't run this command",
    "can't access at least one",
    # Commands that the operator renamed, or a script that the operator stopped.
    "Unknown command",
    "Unknown Redis command",
    "Script killed",
)
"""Parts of errors that commands inside a script can have though the script is right."""

QUIET_SECONDS = 60.0
"""Faults that are further apart than this do not count as repeated."""
MAX_KINDS = 100
"""Kinds of faults that are told apart, by type and place."""


class NameTakenError(RedisError):
    """Another living process is registered under this worker's name."""


class ScriptFaultError(Exception):
    """One of our scripts is wrong. Redis may have done a part of it."""


def script_fault(script: Script, error: ResponseError) -> ScriptFaultError | None:
    """The fault of ``script`` that an error reply to it tells of; None if the reply tells of something else."""
    text = str(error)
    line = _SCRIPT_LINE.search(text)
    # redis-py has a class for codes that it knows.
    if line is None or type(error) is not ResponseError or _CODE.match(text):
        return None
    if any(part in text for part in _NOT_THE_SCRIPTS_FAULT):
        return None
    return ScriptFaultError(f"{script.origin(int(line[1]))}: {text}")


def is_expected(error: BaseException) -> bool:
    """Whether Redis, the network or the operator can cause ``error``."""
    if isinstance(error, RuntimeError):
        return _CLOSED_TRANSPORT.search(str(error)) is not None
    if isinstance(error, UnicodeError):
        return _BAD_HOST_NAME in str(error)
    return isinstance(error, EXPECTED)


def is_out_of_memory(error: ResponseError) -> bool:
    """Whether Redis refused a write for want of memory."""
    return OUT_OF_MEMORY in str(error)


def is_undone(error: BaseException) -> bool:
    """Whether an error says that a script did nothing."""
    if isinstance(error, _UNDONE_ERRORS):
        return True
    return isinstance(error, ResponseError) and any(part in str(error) for part in _UNDONE)


def describe(error: BaseException) -> str:
    """What an expected error says, for a log line."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return str(error) or type(error).__name__


class Faults:
    """Reports faults of our own: the first of each kind with its traceback, the next ones by their number alone."""

    def __init__(self, where: str, counts: Counts, report: ErrorReport | None) -> None:
        self.in_a_row = 0
        """How many there were without a pause of ``QUIET_SECONDS``."""
        self._where = where
        self._counts = counts
        self._report = report
        self._kinds: set[tuple[type[BaseException], str, int]] = set()
        self._last = 0.0

    def report(self, error: BaseException) -> None:
        """Count ``error``, and hand it to the report unless one like it was."""
        now = time.monotonic()
        if now - self._last > QUIET_SECONDS:
            self.in_a_row = 0
        self._last = now
        self.in_a_row += 1
        kind = _kind(error)
        if self._report is None or kind in self._kinds or len(self._kinds) >= MAX_KINDS:
            self._counts.internal_error(self._where)
            return
        self._kinds.add(kind)
        self._report(self._where, error)


def _kind(error: BaseException) -> tuple[type[BaseException], str, int]:
    """The type of an exception and the place that raised it; of a script's fault, the place in the script."""
    if isinstance(error, ScriptFaultError):
        return type(error), str(error), 0
    frames = traceback.extract_tb(error.__traceback__)
    return (type(error), frames[-1].filename, frames[-1].lineno or 0) if frames else (type(error), "", 0)
