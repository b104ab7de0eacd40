"""With `before_commit`, a value that was overwritten is no longer in Redis when the write is answered."""

import asyncio

import pytest
from redis.asyncio import Redis

from tests.consistency import tables
from tests.consistency.sessions import Journal, PreparedTransactions, PsycopgSession

pytestmark = pytest.mark.measured

SETTINGS = {"cache": {"before_commit": True}}
WRITES = [
    ("UPDATE users SET name = '{}' WHERE id = 1",),
    ("UPDATE users SET name = '{}' || '' WHERE id = 1",),
    ("BEGIN", "UPDATE users SET name = '{}' WHERE id = 1", "COMMIT"),
    ("BEGIN", "UPDATE users SET n = 1 WHERE id = 2", "UPDATE users SET name = '{}' WHERE name IS NOT NULL", "COMMIT"),
]


async def test_no_key_is_stale_after_rounds_with_before_commit(rowtap, world, seed, operations):
    proxy = rowtap(tables.RULES, {"proxy": {"workers": 2}, **SETTINGS})
    await world.rounds([proxy], seed=seed, operations=operations(500))


async def test_overwritten_value_is_gone_when_the_commit_is_acknowledged(rowtap, world):
    proxies = [rowtap(tables.RULES, SETTINGS) for _ in range(2)]
    journal, over = Journal(), asyncio.Event()
    seen = []

    async def read(number):
        session = PsycopgSession(f"r{number}", proxies[number % 2].url(), journal, PreparedTransactions())
        await session.connect()
        while not over.is_set():
            await session.execute("SELECT id, name, n FROM users WHERE id = 1")
        await session.close()

    async def write():
        session = PsycopgSession("w", proxies[0].url(), journal, PreparedTransactions())
        await session.connect()
        async with Redis.from_url(world.redis_url) as client:
            for number in range(60):
                for text in WRITES[number % len(WRITES)]:
                    await session.execute(text.format(f"v{number}"))
                seen.append((f"v{number}", await client.get("users:1")))
                if number % 3 == 0:
                    await asyncio.sleep(0.005)  # long enough for a reader's Fill
        await session.close()
        over.set()

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(read(number))
        group.create_task(write())
    assert [pair for pair in seen if pair[1] not in {None, pair[0].encode()}] == [], "stale"
