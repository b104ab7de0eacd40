"""No key is stale when everything has settled, whatever many sessions did at once."""

import contextlib
from random import Random

import pytest

from tests.consistency import tables
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
