"""No key is stale when everything has settled, whatever many sessions did at once."""

import asyncio
import contextlib
from random import Random

import pytest

from tests.consistency import tables
from tests.consistency.invariants import stale
from tests.consistency.rounds import jitter


@pytest.mark.parametrize("delay", [0.0, 0.03], ids=["prompt", "delayed"])
@pytest.mark.parametrize("workers", [1, 4])
async def test_no_key_is_stale(rowtap, world, valkey, faulty, seed, operations, workers, delay):
    async with contextlib.AsyncExitStack() as stack:
        config = {"proxy": {"workers": workers}}
        if delay:
            link = faulty(valkey.host, valkey.port)
            database = world.redis_url.rpartition("/")[2]
            config["redis"] = {"url": f"redis://{link.host}:{link.port}/{database}"}
            await stack.enter_async_context(jitter(link, Random(seed), delay))
        proxy = rowtap(tables.RULES, config)
        await world.rounds([proxy], seed=seed, operations=operations(2500))


SLOW = [
    "SELECT t.* FROM users t, nap({}) WHERE id = 1",
    "WITH w AS MATERIALIZED (SELECT nap({})) SELECT t.* FROM users t, w",
    "SELECT t.*, (SELECT nap({})) FROM users t",
]


@pytest.mark.parametrize("text", SLOW)
def test_a_slow_read_fills(rowtap, world, text):
    proxy = rowtap(tables.RULES)
    proxy.connect().execute(text.format(0.02))
    proxy.settle()
    assert world.held()[b"users:1"] == world.rows()[b"users:1"]


@pytest.mark.parametrize("text", SLOW)
async def test_a_slow_read_does_not_bring_back_what_was_overwritten(rowtap, world, text):
    """Its rows are older than the write that was committed meanwhile, and come later."""
    hosts = [rowtap(tables.RULES), rowtap(tables.RULES)]
    slow, fast = hosts[0].connect(), hosts[1].connect()
    slow.execute("SELECT 1")
    reading = asyncio.create_task(asyncio.to_thread(slow.execute, text.format(0.3)))
    await asyncio.sleep(0.1)
    fast.execute("UPDATE users SET name = 'new', n = 1 WHERE id = 1")
    hosts[1].settle()
    assert world.held() == {b"users:1": b"new", b"person:1": {b"name": b"new", b"n": b"1"}}
    name = {row[0]: row[1] for row in (await reading).fetchall()}[1]
    assert name != "new", "the read was not slow enough"
    hosts[0].settle()
    assert stale(world.held(), world.rows()) == []


async def test_two_hosts_share_one_redis(rowtap, world, seed, operations):
    hosts = [rowtap(tables.RULES), rowtap(tables.RULES)]
    await world.rounds(hosts, seed=seed, operations=operations(2000))


async def test_answers_that_overtake_each_other(rowtap, world, postgres, faulty, seed, operations):
    """Between PostgreSQL and the two proxies everything takes another time."""
    async with contextlib.AsyncExitStack() as stack:
        hosts = []
        for number in range(2):
            link = faulty(postgres.host, postgres.port)
            await stack.enter_async_context(jitter(link, Random(seed + number), 0.02))
            hosts.append(rowtap(tables.RULES, {"postgres": {"port": link.port}}))
        await world.rounds(hosts, seed=seed, operations=operations(2000))
