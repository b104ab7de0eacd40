"""Whether PostgreSQL can be reached, asked for ``/readyz`` and at start."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from proxy.net.dial import UnreachableError, dial

if TYPE_CHECKING:
    from proxy.config.sections import PostgresSection

PATIENCE = 2.0
"""Seconds PostgreSQL has to accept a connection."""
FRESH = 1.0
"""Seconds for which an answer stands, however often it is asked."""


class Readiness:
    """Opens a connection and closes it without a word, which PostgreSQL does not log."""

    def __init__(self, postgres: PostgresSection) -> None:
        self._postgres = postgres
        self._asked = 0.0
        self._why_not: str | None = None
        self._asking = asyncio.Lock()

    async def why_not(self) -> str | None:
        """One line that says why PostgreSQL cannot be reached; None if it can."""
        async with self._asking:
            if not self._asked or time.monotonic() - self._asked > FRESH:
                self._why_not = await self._probe()
                self._asked = time.monotonic()
        return self._why_not

    async def _probe(self) -> str | None:
        try:
            async with asyncio.timeout(PATIENCE):
                _, connection = await dial(self._postgres)
        except TimeoutError:
            return f"could not connect to PostgreSQL at {self._postgres}: no answer within {PATIENCE:g} s"
        except UnreachableError as error:
            return str(error)
        connection.close()
        return None
