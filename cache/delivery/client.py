"""As much of a Redis client as the writer needs: one connection, and on it one command at a time, bounded in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import NoScriptError, ResponseError

from cache.delivery import scripts
from cache.delivery.connections import connector, pack
from cache.delivery.faults import describe, script_fault
from cache.delivery.server_info import facts_of, problems

if TYPE_CHECKING:
    from cache.delivery.connections import RedisConnection
    from cache.delivery.packing import Arguments
    from cache.delivery.scripts import Script


class RedisClient:
    """Speaks to the Redis at ``url``; no exchange with it takes longer than ``timeout`` seconds.

    All but ``close`` raise what ``faults.is_expected`` knows, and ``ScriptFaultError``. Whatever interrupts an exchange
    leaves the connection unusable: the caller must then ``close`` it.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.run_id = b""
        """Of the server; empty where INFO is not permitted."""
        self._make_connection = connector(url, timeout)
        self._timeout = timeout
        self._connection: RedisConnection | None = None
        self._transport: asyncio.WriteTransport | None = None

    async def connect(self) -> dict[str, str]:
        """Open a connection. Returns what the server says of itself, nothing where INFO is not permitted."""
        connection = self._connection = self._make_connection()
        async with asyncio.timeout(self._timeout):
            await connection.connect()
            # redis-py forgets it when a command is interrupted, and lets it send what is left.
            self._transport = cast("Any", connection)._writer.transport
            try:
                facts = facts_of(await self.call(b"INFO", b"server"))
            except ResponseError:
                facts = {}  # Joining still finds out whether this is the Redis that the worker knew.
        self.run_id = facts.get("run_id", "").encode()
        return facts

    async def call(self, *command: bytes | int) -> Any:
        """Send one command and return its reply."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise ConnectionResetError("connection is gone")
        async with asyncio.timeout(self._timeout):
            await connection.send_packed_command(pack(command), check_health=False)
            return await connection.read_response(disconnect_on_error=False)

    async def run(self, script: Script, arguments: Arguments) -> Any:
        """Run one of our scripts and return its reply. ``arguments`` begin with the number of keys."""
        try:
            try:
                return await self.call(b"EVALSHA", script.digest, *arguments)
            except NoScriptError:
                return await self.call(b"EVAL", script.text, *arguments)
        except ResponseError as error:
            if (fault := script_fault(script, error)) is not None:
                raise fault from error
            raise

    async def close(self) -> None:
        """Drop the connection, if there is one."""
        connection, self._connection = self._connection, None
        transport, self._transport = self._transport, None
        if transport is not None:
            # At once, and without what is still unsent: it must not reach a Redis that was only slow.
            transport.abort()
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def problems(self) -> list[str]:
        """What is wrong with the server, in words, over a connection of its own."""
        connection = self._make_connection()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
                await connection.send_packed_command(pack((b"INFO",)), check_health=False)
                found = problems(facts_of(await connection.read_response()))
                if all(problem.startswith("maxmemory-policy") for problem in found):
                    probe = pack((b"EVAL", scripts.PROBE.text, 0))
                    await connection.send_packed_command(probe, check_health=False)
                    try:
                        await connection.read_response()
                    except ResponseError as error:
                        found.append(f"Redis refuses what Rowtap needs: {describe(error)}")
                return found
        finally:
            await connection.disconnect(nowait=True)
