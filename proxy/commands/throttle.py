"""Keeps ``rowtap warm`` from reading faster than the proxy fills Redis."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from proxy import admin_client
from proxy.admin_client import AdminError
from proxy.commands.table_reader import ReadFailure

if TYPE_CHECKING:
    from proxy.config.units import Address

STALL_TIMEOUT = 30.0
"""Seconds without any change reaching Redis after which the command gives up."""
SETTLE_TIMEOUT = 5.0
"""Seconds the last changes of a table have to reach Redis while other traffic goes on."""
STATUS_TIMEOUT = 5.0
"""Seconds the admin endpoint has to answer."""


class Throttle:
    """Waits while too many changes are pending, as the admin endpoint at ``admin`` reports them. Without an endpoint
    that answers it does not wait."""

    def __init__(self, admin: Address | None, limit: int) -> None:
        self._admin = admin
        self._limit = limit
        """Pending changes above which the command waits."""

    async def wait(self) -> None:
        """Return when there are no more than ``limit`` pending changes. Raises ``ReadFailure`` if their number does not
        change for ``STALL_TIMEOUT`` seconds."""
        last, since = -1, time.monotonic()
        while (pending := await self.pending_changes()) is not None and pending > self._limit:
            if pending != last:
                last, since = pending, time.monotonic()
            if time.monotonic() - since > STALL_TIMEOUT:
                raise ReadFailure(f"{pending} changes are pending and none has reached Redis for {STALL_TIMEOUT:g} s")
            await asyncio.sleep(0.02)

    async def settle(self) -> None:
        """Return when what was read so far has reached Redis, as far as the endpoint tells, or after a second if it
        does not answer."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        zeros = 0
        while zeros < 2 and time.monotonic() < deadline:
            pending = await self.pending_changes()
            if pending is None:
                await asyncio.sleep(1.0)
                return
            zeros = zeros + 1 if pending == 0 else 0
            await asyncio.sleep(0.02)

    async def pending_changes(self) -> int | None:
        """The number in ``/status``; None if the endpoint does not tell."""
        if self._admin is None:
            return None
        try:
            status = json.loads(await asyncio.to_thread(_get_status, self._admin))
        except (AdminError, ValueError):
            return None
        pending = status.get("pending_changes") if isinstance(status, dict) else None
        return pending if isinstance(pending, int) else None


def _get_status(address: Address) -> bytes:
    return admin_client.get(
        address.client_host, address.port, "/status", socket_path=address.path, timeout=STATUS_TIMEOUT
    )
