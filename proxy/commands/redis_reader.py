"""What Redis holds under given keys, for the commands that compare: reads only, over one connection."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from cache.delivery.connections import connector, pack
from cache.rules import ValueFormat
from proxy.commands.table_reader import ReadFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from cache.changes import Value
    from proxy.config.sections import RedisSection

TIMEOUT = 30.0
"""Seconds for one reply: a table's largest values have to fit in."""
SCAN_COUNT = 1000
_FAILURES = (RedisError, OSError, TimeoutError, EOFError)


class Foreign(Enum):
    """What a key holds that Rowtap never wrote there."""

    TYPE = "another type"


class Keys:
    """One connection to Redis. Use ``async with``. Everything raises ``ReadFailure``."""

    def __init__(self, settings: RedisSection) -> None:
        self._place = settings.safe_url
        self._connection = connector(settings.url, TIMEOUT)()

    async def __aenter__(self) -> Keys:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._connection.connect()
        except _FAILURES as error:
            raise self._failure(error) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.disconnect(nowait=True)

    async def get(self, keys: Sequence[bytes], form: ValueFormat) -> list[Value | Foreign | None]:
        """What stands under each key of a rule with this format; None where there is no such key."""
        if form is not ValueFormat.HASH:
            return await self._ask([(b"GET", key) for key in keys])
        replies = await self._ask([(b"HGETALL", key) for key in keys])
        return [reply if isinstance(reply, Foreign) else _fields(reply) for reply in replies]

    async def exist(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether there are such keys."""
        return [bool(reply) for reply in await self._ask([(b"EXISTS", key) for key in keys])]

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """All keys that match a glob, in slices. A key that stays is there at least once."""
        cursor = b"0"
        while True:
            ((cursor, keys),) = await self._ask([(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT)])
            if keys:
                yield keys
            if cursor == b"0":
                return

    async def _ask(self, commands: Sequence[tuple[bytes | int, ...]]) -> list[Any]:
        """One reply for each command; all are sent before the first reply is read."""
        connection = self._connection
        replies: list[Any] = []
        try:
            async with asyncio.timeout(TIMEOUT):
                await connection.send_packed_command(b"".join(map(pack, commands)), check_health=False)
            for _ in commands:
                async with asyncio.timeout(TIMEOUT):
                    replies.append(await self._reply())
        except _FAILURES as error:
            raise self._failure(error) from None
        return replies

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return Foreign.TYPE
            raise

    def _failure(self, error: BaseException) -> ReadFailure:
        words = " ".join(str(error).split()) or type(error).__name__
        return ReadFailure(f"Redis at {self._place} cannot be read: {words}")


def _fields(reply: Sequence[bytes]) -> dict[bytes, bytes] | None:
    """A hash without fields is no key."""
    return dict(zip(reply[::2], reply[1::2], strict=True)) or None
