"""What Redis holds under given keys, for ``warm`` and ``verify``: reads only, over one connection."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from cache.delivery.connections import connector, pack
from cache.rules import ValueFormat
from proxy.commands.table_reader import ReadFailure, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from cache.changes import Value
    from proxy.config.sections import RedisSection

TIMEOUT = 30.0
"""Seconds for one reply, also if it is one of a table's largest values."""
SCAN_COUNT = 1000
_FAILURES = (RedisError, OSError, TimeoutError, EOFError)


class WrongType(Enum):
    """In place of a value: the key is of a Redis type that its rule's format never writes."""

    WRONG_TYPE = "another type"


class RedisKeys:
    """Reads keys over one connection to Redis. Use ``async with``. Everything raises ``ReadFailure``."""

    def __init__(self, settings: RedisSection) -> None:
        self._url = settings.safe_url
        self._connection = connector(settings.url, TIMEOUT)()

    async def __aenter__(self) -> RedisKeys:
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

    async def get(self, keys: Sequence[bytes], value_format: ValueFormat) -> list[Value | WrongType | None]:
        """The value of each key of a rule with this format; None where there is no such key."""
        if value_format is not ValueFormat.HASH:
            return await self._call([(b"GET", key) for key in keys])
        replies = await self._call([(b"HGETALL", key) for key in keys])
        return [reply if isinstance(reply, WrongType) else _fields(reply) for reply in replies]

    async def exist(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether there is such a key, for each."""
        return [bool(reply) for reply in await self._call([(b"EXISTS", key) for key in keys])]

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """All keys that match a glob pattern, in slices. A key that exists all the time is in at least one of them."""
        cursor = b"0"
        while True:
            ((cursor, keys),) = await self._call([(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT)])
            if keys:
                yield keys
            if cursor == b"0":
                return

    async def _call(self, commands: Sequence[tuple[bytes | int, ...]]) -> list[Any]:
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
                return WrongType.WRONG_TYPE
            raise

    def _failure(self, error: BaseException) -> ReadFailure:
        return ReadFailure(f"Redis at {self._url} cannot be read: {one_line(error)}")


def _fields(reply: Sequence[bytes]) -> dict[bytes, bytes] | None:
    """HGETALL's reply as a dictionary; None if it is empty, since Redis has no hash without fields."""
    return dict(zip(reply[::2], reply[1::2], strict=True)) or None
