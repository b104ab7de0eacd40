"""The socket pair between the supervisor and one worker: a line ``status`` asks, a line of JSON answers.

The end of the stream tells either side that the other process has ended.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from cache.counts import ErrorReport

MAX_ANSWER = 16_777_216
"""Longest status line, in bytes."""


class ControlChannel:
    """The supervisor's end. One object for each worker process; ``close`` it when the process has ended."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_internal_error: ErrorReport
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_internal_error = on_internal_error
        self._lock = asyncio.Lock()
        """Held by the caller that waits for an answer."""
        self._unanswered = 0
        """Questions that were sent and whose answer has not been read."""

    @classmethod
    async def open(cls, end: socket.socket, on_internal_error: ErrorReport) -> ControlChannel:
        """Take over ``end``, this process's socket of the pair."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_ANSWER), on_internal_error)

    async def status(self) -> dict[str, Any] | None:
        """The worker's status; None if it has ended, or could not put its status together.

        May be cancelled: the next call reads the late answer first and discards it, so that an answer is never taken
        for that of a later question, and a worker that is slow to start or busy is not given up.
        """
        async with self._lock:
            try:
                while self._unanswered:
                    if not await self._answer():
                        return None
                self._writer.write(b"status\n")
                self._unanswered += 1
                line = await self._answer()
                return cast("dict[str, Any] | None", json.loads(line)) if line else None
            except OSError:
                return None  # The worker has ended.
            except ValueError as error:
                # Longer than MAX_ANSWER, or no JSON: a worker sends neither.
                self._on_internal_error("supervisor", error)
                return None

    async def _answer(self) -> bytes:
        """The next whole line; empty when the worker has ended, perhaps in the middle of a line."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            return b""
        self._unanswered -= 1
        return line

    def close(self) -> None:
        """Close the connection, which tells a worker that still runs to stop."""
        self._writer.close()


async def answer_status(
    end: socket.socket,
    status: Callable[[], Mapping[str, Any]],
    on_supervisor_ended: Callable[[], None],
    on_internal_error: ErrorReport,
) -> None:
    """The worker's side: answer each question with ``status()`` until the supervisor has ended, then call
    ``on_supervisor_ended``. An exception of ``status`` is reported and answered with ``null``."""
    reader, writer = await asyncio.open_unix_connection(sock=end)
    try:
        while await reader.readline():
            writer.write(_answer_line(status, on_internal_error))
            await writer.drain()
    except OSError:
        pass  # The supervisor has ended with its answer unread.
    finally:
        writer.close()
    on_supervisor_ended()


def _answer_line(status: Callable[[], Mapping[str, Any]], on_internal_error: ErrorReport) -> bytes:
    try:
        return json.dumps(status()).encode() + b"\n"
    except Exception as error:  # noqa: BLE001 - reported; without an answer the supervisor would wait for it
        on_internal_error("supervisor", error)
        return b"null\n"
