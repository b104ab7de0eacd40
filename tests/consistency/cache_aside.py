"""Textbook cache-aside, done by the application itself and with care: what Rowtap is compared with.

A read asks Redis first; on a miss it reads PostgreSQL and sets what it read. A write is committed, then its keys are
deleted, all keys of the table when it cannot know which. Nothing is cached from inside a
block. Every client keeps to it.
"""

import re
from typing import Any

import psycopg
from redis.asyncio import Redis

from tests.consistency import tables
from tests.consistency.sessions import PsycopgSession
from tests.consistency.statements import Run
from tests.consistency.workload import Copy, Finish, Portions, Step, Together, Unit


class CacheAside(PsycopgSession):
    """A session straight to PostgreSQL that keeps Redis up to date by hand. Set `redis_url` before use."""

    redis_url = ""
    _redis: Redis | None = None

    async def work(self, unit: Unit) -> None:
        """The unit, and what the textbook does around it."""
        if self._redis is None:
            self._redis = Redis.from_url(self.redis_url)
        one_phase = tuple(map(_one_phase, (step for step in unit if not isinstance(step, Finish))))
        await super().work(one_phase)
        for step in one_phase:
            for run in _runs(step):
                await self._forget(run)

    async def _run(self, run: Run) -> str:
        if run.reads and run.writes == () and not self._in_block:
            return await self._read(run)
        return await super()._run(run)

    @property
    def _in_block(self) -> bool:
        return self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    async def _read(self, run: Run) -> str:
        assert self._redis is not None
        wanted = [name for key in run.reads for name in tables.redis_keys(run.table, key)]
        if wanted and await self._redis.exists(*wanted) == len(wanted):
            return "hit"
        # As slow as the statement itself, and with its snapshot.
        sleep = re.search(r"nap\([\d.]+\)", run.text)
        query = tables.query(run.table) + (f", {sleep[0]}" if sleep else "")
        cursor = await self.connection.execute(query.encode())
        for name, value in tables.expected(run.table, await cursor.fetchall()).items():
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

    async def _forget(self, run: Run) -> None:
        assert self._redis is not None
        for table in run.table.split():
            if run.writes is None or table == "owners":
                owned = tables.redis_prefixes("pets" if table == "owners" else table)
                names = [name for prefix in owned async for name in self._redis.scan_iter(prefix + b"*", count=1000)]
            else:
                names = [name for key in run.writes for name in tables.redis_keys(table, key)]
            if names:
                await self._redis.delete(*names)

    async def close(self) -> None:
        """End both connections."""
        await super().close()
        if self._redis is not None:
            redis, self._redis = self._redis, None
            await redis.aclose()


def _one_phase(step: Step) -> Step:
    """Who ends a prepared transaction of somebody else's does not know its keys; the textbook has no page on that."""
    return Run("COMMIT") if isinstance(step, Run) and step.text.startswith("PREPARE TRANSACTION") else step


def _runs(step: Step) -> tuple[Run, ...]:
    if isinstance(step, Run):
        return (step,)
    if isinstance(step, Together):
        return step.runs
    return (step.run,) if isinstance(step, Portions | Copy) else ()
