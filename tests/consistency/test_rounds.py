"""No key is stale once every change is in Redis, with many concurrent sessions."""

import asyncio
import contextlib
import os
from random import Random

import pytest

from tests.consistency import tables
from tests.consistency.invariants import stale
from tests.consistency.rounds import jitter

LONG = "CONSISTENCY_OPERATIONS" in os.environ


@pytest.mark.parametrize(
    ("workers", "delay"), [(1, 0.0), (1, 0.03), (4, 0.0), (4, 0.03)] if LONG else [(1, 0.0), (2, 0.03)]
)
async def test_no_key_is_stale_after_rounds_of_concurrent_sessions(
    rowtap, world, valkey, faulty, seed, operations, workers, delay
):
    async with contextlib.AsyncExitStack() as stack:
        config = {"proxy": {"workers": workers}}
        if delay:
            link = faulty(valkey.host, valkey.port)
            database = world.redis_url.rpartition("/")[2]
            config["redis"] = {"url": f"redis://{link.host}:{link.port}/{database}"}
            await stack.enter_async_context(jitter(link, Random(seed), delay))
        proxy = rowtap(tables.RULES, config)
        await world.rounds([proxy], seed=seed, operations=operations(1500))


SLOW = [
    "SELECT t.* FROM users t, stable_sleep({}) WHERE id = 1",
    "WITH w AS MATERIALIZED (SELECT stable_sleep({})) SELECT t.* FROM users t, w",
    "SELECT t.*, (SELECT stable_sleep({})) FROM users t",
]


def test_slow_read_fills_its_key(rowtap, world, redis_client):
    proxy = rowtap(tables.RULES)
    connection = proxy.connect()
    for text in SLOW:
        connection.execute(text.format(0.02))
        proxy.settle()
        assert world.held()[b"users:1"] == world.rows()[b"users:1"]
        redis_client.delete("users:1")


@pytest.mark.timing("a write must be in Redis before a read of 0.3 s has ended")
async def test_slow_read_does_not_fill_an_overwritten_value(rowtap, world):
    """Its rows are older than the write that was committed meanwhile, and reach the proxy later."""
    hosts = [rowtap(tables.RULES), rowtap(tables.RULES)]
    slow, fast = hosts[0].connect(), hosts[1].connect()
    for text in SLOW:
        name = f"new {text}"
        reading = asyncio.create_task(asyncio.to_thread(slow.execute, text.format(0.3)))
        await asyncio.sleep(0.1)
        fast.execute("UPDATE users SET name = %s, n = 1 WHERE id = 1", (name,))
        hosts[1].settle()
        assert world.held()[b"users:1"] == name.encode()
        read = {row[0]: row[1] for row in (await reading).fetchall()}[1]
        assert read != name, "the read was not slow enough"
        hosts[0].settle()
        assert stale(world.held(), world.rows()) == []


async def test_no_key_is_stale_with_two_hosts_on_one_redis(rowtap, world, seed, operations):
    hosts = [rowtap(tables.RULES), rowtap(tables.RULES)]
    await world.rounds(hosts, seed=seed, operations=operations(1000))


async def test_no_key_is_stale_with_random_delays_to_postgres(rowtap, world, postgres, faulty, seed, operations):
    """The delays differ between the two proxies, so that answers arrive in another order than the commits."""
    async with contextlib.AsyncExitStack() as stack:
        hosts = []
        for number in range(2):
            link = faulty(postgres.host, postgres.port)
            await stack.enter_async_context(jitter(link, Random(seed + number), 0.02))
            hosts.append(rowtap(tables.RULES, {"postgres": {"port": link.port}}))
        await world.rounds(hosts, seed=seed, operations=operations(1000))
