"""The cache-aside pattern of the textbooks, done by the application itself: what Rowtap is compared with.

A read asks Redis first; on a miss it reads PostgreSQL and sets what it read. A write is committed, then its keys are
deleted, or all keys of the table where they are unknown. Nothing is cached from within a transaction block. Every
client follows these rules.
"""

import re
from typing import Any

import psycopg
from redis.asyncio import Redis

from tests.consistency import tables
from tests.consistency.sessions import PsycopgSession
from tests.consistency.statements import Statement
from tests.consistency.workload import Copy, EndPrepared, Pipeline, PortalRead, Step, Unit


class CacheAside(PsycopgSession):
    """A session directly to PostgreSQL that updates Redis itself. Set `redis_url` before use."""

    redis_url = ""
    _redis: Redis | None = None

    async def work(self, unit: Unit) -> None:
        """Carry out the unit, with the reads and deletions of cache-aside."""
        if self._redis is None:
            self._redis = Redis.from_url(self.redis_url)
        one_phase = tuple(map(_one_phase, (step for step in unit if not isinstance(step, EndPrepared))))
        await super().work(one_phase)
        for step in one_phase:
            for statement in _statements(step):
                await self._forget(statement)

    async def _run(self, statement: Statement) -> str:
        if statement.reads and statement.writes == () and not self._in_block:
            return await self._read(statement)
        return await super()._run(statement)

    @property
    def _in_block(self) -> bool:
        return self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    async def _read(self, statement: Statement) -> str:
        assert self._redis is not None
        wanted = [name for key in statement.reads for name in tables.redis_keys(statement.table, key)]
        if wanted and await self._redis.exists(*wanted) == len(wanted):
            return "hit"
        # Sleeps as long as the statement would, after its snapshot was taken.
        sleep = re.search(r"stable_sleep\([\d.]+\)", statement.text)
        query = tables.query(statement.table) + (f", {sleep[0]}" if sleep else "")
        cursor = await self.connection.execute(query.encode())
        for name, value in tables.expected(statement.table, await cursor.fetchall()).items():
            if name in wanted:
                await self._set(name, value)
        return "miss"

    async def _set(self, name: bytes, value: Any) -> None:
        assert self._redis is not None
        if isinstance(value, bytes):
            await self._redis.set(name, value)
        elif isinstance(name, bytes) and name.startswith(b"docs:"):
            await self._redis.set(name, tables.encode(value))
        else:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.delete(name)
                pipeline.hset(name, mapping=value)
                await pipeline.execute()

    async def _forget(self, statement: Statement) -> None:
        assert self._redis is not None
        for table in statement.table.split():
            if statement.writes is None or table == "owners":
                owned = tables.redis_prefixes("pets" if table == "owners" else table)
                names = [name for prefix in owned async for name in self._redis.scan_iter(prefix + b"*", count=1000)]
            else:
                names = [name for key in statement.writes for name in tables.redis_keys(table, key)]
            if names:
                await self._redis.delete(*names)

    async def close(self) -> None:
        """Close both connections."""
        await super().close()
        if self._redis is not None:
            redis, self._redis = self._redis, None
            await redis.aclose()


def _one_phase(step: Step) -> Step:
    """COMMIT instead of PREPARE TRANSACTION: the session that ends another session's prepared transaction would not
    know which keys to delete."""
    return Statement("COMMIT") if isinstance(step, Statement) and step.text.startswith("PREPARE TRANSACTION") else step


def _statements(step: Step) -> tuple[Statement, ...]:
    if isinstance(step, Statement):
        return (step,)
    if isinstance(step, Pipeline):
        return step.statements
    return (step.statement,) if isinstance(step, PortalRead | Copy) else ()
