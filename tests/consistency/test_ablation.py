"""The harness finds stale keys where there are some: with the fences off, and with cache-aside."""

import contextlib
from pathlib import Path
from random import Random

import pytest

from tests.consistency import tables
from tests.consistency.cache_aside import CacheAside
from tests.consistency.rounds import ROUND, jitter

pytestmark = pytest.mark.timing("a stale key needs sessions that overtake each other, for which they need the CPU")

FENCELESS = {"PYTHONPATH": str(Path(__file__).parent / "fenceless")}
MOST = 60
"""Rounds without a stale key after which there must be something wrong with the harness. Half of them have one."""


async def found(world, hosts, seed, **choices):
    """Rounds until there was a stale key; how many keys, in how many operations."""
    operations = 0
    for number in range(MOST):
        stale, done = await world.count(hosts, seed=seed + number, operations=ROUND, **choices)
        operations += done
        if stale:
            return stale, operations
    return 0, operations


async def test_without_fences_keys_are_stale(rowtap, world, valkey, faulty, seed):
    async with contextlib.AsyncExitStack() as stack:
        hosts = []
        for number in range(2):
            link = faulty(valkey.host, valkey.port)
            await stack.enter_async_context(jitter(link, Random(seed + number), 0.01))
            url = f"redis://{link.host}:{link.port}/{world.redis_url.rpartition('/')[2]}"
            hosts.append(rowtap(tables.RULES, {"redis": {"url": url}}, env=FENCELESS))
        stale, operations = await found(world, hosts, seed)
    assert stale, f"no stale key in {operations} operations"


async def test_with_cache_aside_keys_are_stale(world, seed):
    CacheAside.redis_url = world.redis_url
    stale, operations = await found(world, [], seed, client=CacheAside)
    assert stale, f"no stale key in {operations} operations"
