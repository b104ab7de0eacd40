"""What SIGTERM, SIGINT and SIGHUP do to a process of ``rowtap serve``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def handle_signals(*, stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
    """Inside the block each SIGTERM or SIGINT calls ``stop`` and each SIGHUP calls ``reload``, in the running loop."""
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
