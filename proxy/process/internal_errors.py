"""Exceptions that no rule expects, so faults of Rowtap's own: counted, and logged with their tracebacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy import logs

if TYPE_CHECKING:
    import asyncio

    from cache.counts import Counts

log = logs.get()


class InternalErrors:
    """The ``ErrorReport`` of one process. Everything that runs in the process gets it as ``on_internal_error``."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def __call__(self, where: str, error: BaseException) -> None:
        """Count ``error``, which the part ``where`` caught, and log its traceback."""
        self._counts.internal_error(where)
        log.error("internal error", where=where, exc_info=error)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report as ``event_loop`` what reaches ``loop`` itself: exceptions of callbacks, of protocols, and of tasks
        whose result is not read. What sockets raise is left to the loop's own handler."""
        loop.set_exception_handler(self._uncaught)

    def _uncaught(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or isinstance(error, OSError):
            loop.default_exception_handler(context)
        else:
            self("event_loop", error)
