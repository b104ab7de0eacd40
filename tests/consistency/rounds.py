"""A round: run a workload, stop, wait until every change is in Redis, compare every key with PostgreSQL.

    world = World(postgres, database, redis_url)         # a database with the tables, and the Redis that mirrors it
    await world.round([proxy], seed=7, operations=2000)  # fails and prints what is known about each stale key

`hosts` are running proxies; the sessions are distributed over them. A test may make servers and connections fail while
a round runs: see `Disturbance`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from random import Random
from typing import Any

import psycopg
import pytest
import redis

from tests.consistency import tables, workload
from tests.consistency.invariants import Difference, stale, warmth
from tests.consistency.sessions import PATIENCE, AsyncpgSession, Journal, PreparedTransactions, PsycopgSession, Session
from tests.fix_faults import FaultyLink

SESSIONS = 10
ROUND = 500
"""Operations of one round when many are asked for: a stale value is found at the end of a round unless a later write in
that round replaced it."""

Disturbance = Callable[["Round"], Awaitable[None]]
"""Called with the round while it runs, to make something fail. The round goes on for a while after it returns."""


class World:
    """The tables in a database of their own and the Redis that mirrors them; compares the two."""

    def __init__(self, postgres, database, redis_url) -> None:
        self.redis_url = redis_url
        self.dsn = postgres.dsn(database)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(tables.SCHEMA)
            for setting in ("deadlock_timeout = '20ms'", "lock_timeout = '2s'"):
                connection.execute(f"ALTER DATABASE {database} SET {setting}".encode())
            for statement in workload.initial_rows():
                connection.execute(statement.literal.encode())

    # Contents of PostgreSQL and Redis.

    def rows(self) -> dict[bytes, Any]:
        """What Redis would hold if every row's key were present."""
        found: dict[bytes, Any] = {}
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for table in tables.TABLES:
                found |= tables.expected(table.name, connection.execute(tables.query(table.name).encode()).fetchall())
        return found

    def held(self) -> dict[bytes, Any]:
        """What Redis holds, without the keys of Rowtap itself."""
        with redis.Redis.from_url(self.redis_url) as client:
            return {key: tables.decode(key, _value(client, key)) for key in _names(client)}

    def warmth(self) -> float:
        """The share of keys present at this moment, while sessions may be at work."""
        with redis.Redis.from_url(self.redis_url) as client:
            return warmth(dict.fromkeys(_names(client)), self.rows())

    def remove(self, keys: Iterable[bytes]) -> None:
        """Delete keys from Redis."""
        with redis.Redis.from_url(self.redis_url) as client:
            for key in keys:
                client.delete(key)

    # Rounds.

    async def count(self, hosts: Sequence[Any], *, seed: int, operations: int, **choices: Any) -> tuple[int, int]:
        """(stale keys found at the ends of short rounds, operations done). For configurations that may leave stale
        keys."""
        found = done = 0
        while done < operations:
            finished = Round(self, hosts, seed=seed, operations=min(ROUND, operations - done), **choices)
            await finished.run()
            differences = await finished.settle_and_compare()
            self.remove(difference.key for difference in differences)
            found += len(differences)
            done += finished.journal.operations
            seed += 1
        return found, done

    async def rounds(self, hosts: Sequence[Any], *, seed: int, operations: int, **choices: Any) -> int:
        """Run rounds until `operations` are done. Returns the number done."""
        done = 0
        while done < operations:
            finished = await self.round(hosts, seed=seed, operations=min(ROUND, operations - done), **choices)
            done += finished.journal.operations
            seed += 1
        return done

    async def round(
        self, hosts: Sequence[Any], *, seed: int, operations: int, disturb: Disturbance | None = None, **choices: Any
    ) -> "Round":
        """Run the operations, wait until every change is in Redis, and fail the test if a key is stale."""
        done = Round(self, hosts, seed=seed, operations=operations, **choices)
        await done.run(disturb)
        differences = await done.settle_and_compare()
        if differences:
            pytest.fail(done.report(differences))
        return done

    def wait_until_idle(self, patience: float = PATIENCE) -> None:
        """Wait until no statement runs in the database, not even one whose client is gone."""
        deadline = time.monotonic() + patience
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND state <> 'idle'"
        )
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while (connection.execute(query.encode()).fetchone() or (0,))[0]:
                assert time.monotonic() < deadline, "statements still run in PostgreSQL"
                time.sleep(0.01)

    def commit_prepared(self, dsn: str) -> int:
        """Commit the remaining prepared transactions, through a proxy. Returns their number."""
        with (
            psycopg.connect(self.dsn, autocommit=True) as direct,
            psycopg.connect(dsn, autocommit=True) as connection,
        ):
            query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            gids = [gid for (gid,) in direct.execute(query).fetchall()]
            for gid in gids:
                connection.execute(f"COMMIT PREPARED '{gid}'".encode())
        return len(gids)


class Round:
    """One round. `.journal` records its operations."""

    def __init__(
        self,
        world: World,
        hosts: Sequence[Any],
        *,
        seed: int,
        operations: int,
        sessions: int = SESSIONS,
        reads: float = 0.5,
        client: Callable[..., Session] | None = None,
    ) -> None:
        """Without `hosts`, `client` makes the sessions, which connect directly to PostgreSQL."""
        self.world, self.hosts, self.seed = world, hosts, seed
        self.journal = Journal()
        self.operations = operations
        self._client = client
        self._reads = reads
        self._prepared = PreparedTransactions()
        self._over = asyncio.Event()
        self.sessions = [self._session(number) for number in range(sessions)]

    def _session(self, number: int) -> Session:
        if not self.hosts:
            assert self._client is not None
            return self._client(f"c{number}", self.world.dsn, self.journal, self._prepared)
        dsn = self.hosts[number % len(self.hosts)].url()
        if number % 3 == 2:
            return AsyncpgSession(f"a{number}", dsn, self.journal, self._prepared)
        return PsycopgSession(f"p{number}", dsn, self.journal, self._prepared)

    async def run(self, disturb: Disturbance | None = None) -> None:
        """Run every session's share of the operations, and `disturb` in the middle of them."""
        async with asyncio.TaskGroup() as group:
            for number, session in enumerate(self.sessions):
                group.create_task(self._work(number, session))
            group.create_task(self._disturb_and_finish(disturb))

    async def _disturb_and_finish(self, disturb: Disturbance | None) -> None:
        if disturb is not None:
            await self.wait_for_share(0.3)
            await disturb(self)
            end = self.journal.operations + 0.3 * self.operations
            await self.wait_for_operations(end)
        self._over.set()

    async def _work(self, number: int, session: Session) -> None:
        share = self.operations // len(self.sessions)
        done = 0
        try:
            for unit in workload.units(self.seed, number, reads=self._reads):
                await session.work(unit)
                done += workload.size(unit)
                if done >= share and self._over.is_set():
                    break
        finally:
            await session.close()

    async def wait_for_share(self, share: float) -> None:
        """Wait until this share of the operations is done."""
        await self.wait_for_operations(share * self.operations)

    async def wait_for_operations(self, operations: float) -> None:
        """Wait until this number of operations is done."""
        while self.journal.operations < operations:
            await asyncio.sleep(0.005)

    async def settle_and_compare(self) -> list[Difference]:
        """Wait until every change is in Redis. Returns the stale keys."""
        for host in self.hosts:
            await asyncio.to_thread(wait_until_ready, host)
        await asyncio.to_thread(self.world.wait_until_idle)
        await asyncio.to_thread(self.world.commit_prepared, self.hosts[0].dsn() if self.hosts else self.world.dsn)
        for host in self.hosts:
            await asyncio.to_thread(host.settle)
        return stale(self.world.held(), self.world.rows())

    def report(self, differences: Sequence[Difference]) -> str:
        """What the journal knows about the stale keys."""
        lines = [f"seed {self.seed}: {len(differences)} stale keys after {self.journal.operations} operations"]
        for difference in differences[:3]:
            lines += ["", f"{difference.key!r}", f"  Redis      {difference.redis!r}"]
            lines += [f"  PostgreSQL {difference.postgres!r}"]
            for table in tables.TABLES:
                for key in tables.keys(table, 2):
                    if difference.key in tables.redis_keys(table.name, key):
                        lines += map(str, self.journal.entries_of(table.name, key))
        return "\n".join(lines)


def wait_until_ready(host: Any, patience: float = PATIENCE) -> None:
    """Wait until a proxy has all its workers and reaches PostgreSQL and Redis."""
    deadline = time.monotonic() + patience
    while True:
        status, text = host.get("/readyz")
        if status == 200:
            return
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


@contextlib.asynccontextmanager
async def jitter(link: FaultyLink, random: Random, most: float) -> AsyncIterator[None]:
    """Delays of up to `most` seconds on a link, which change all the time and differ in each direction."""

    async def vary() -> None:
        while True:
            for direction in (link.to_server, link.to_client):
                direction.delay = random.choice((0.0, 0.0, random.uniform(0, most)))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(vary())
    try:
        yield
    finally:
        task.cancel()
        link.to_server.delay = link.to_client.delay = 0.0


def _names(client: redis.Redis) -> list[bytes]:
    return [key for key in client.scan_iter(count=1000) if not key.startswith(b"rowtap:")]


def _value(client: redis.Redis, key: bytes) -> Any:
    kind = client.type(key)
    if kind == b"hash":
        return client.hgetall(key)
    if kind == b"string":
        return client.get(key)
    return kind
