"""The writer against a real server: which changes fences let pass, how values are written, two workers at once."""

import asyncio
import random
import time

import pytest
import redis

from cache.changes import Kind
from cache.rules import ValueFormat
from tests.cache.delivery.writing import Worker, make_rule, working

# Fences.


async def test_fill_store_and_evict_reach_redis_and_are_counted(redis_url, redis_client):
    async with working(redis_url) as w:
        w.fill(b"read")
        await w.settle()
        assert redis_client.get("users:1") == b"read"
        w.store(b"written")
        await w.settle()
        assert redis_client.get("users:1") == b"written"
        w.evict()
        await w.settle()
        assert redis_client.get("users:1") is None
        # The first flush is the one that a rule new to this Redis begins with.
        assert (w.counts.fills, w.counts.stores, w.counts.evicts, w.counts.flushes) == (1, 1, 1, 1)


@pytest.mark.parametrize("write", ["store", "evict"])
async def test_fill_dated_before_a_write_is_refused(redis_url, redis_client, write):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        stamp = w.stamp()
        getattr(x, write)(*([b"new"] if write == "store" else []))
        await x.settle()
        w.fill(b"old", stamp=stamp)
        await w.settle()
        assert redis_client.get("users:1") == (b"new" if write == "store" else None)
        assert w.counts.refused == 1


async def test_fill_dated_after_a_write_is_accepted(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        x.evict()
        await x.settle()
        w.store(b"other", key=b"users:2")
        await w.settle()
        w.fill(b"new")
        await w.settle()
        assert redis_client.get("users:1") == b"new"


async def test_store_that_overlaps_another_workers_evicts(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        stamp = w.stamp()
        x.store(b"x")
        await x.settle()
        w.store(b"w", stamp=stamp)
        await w.settle()
        assert redis_client.get("users:1") is None
        assert (w.counts.stores, w.counts.evicts) == (0, 1)


async def test_store_after_this_workers_own_unanswered_one_is_accepted(server):
    async with working(server.url, timeout=5) as w:
        server.pause()
        w.store(b"1")
        await w.until(lambda: w.backlog.batches.in_flight)
        w.store(b"2")
        server.resume()
        await w.settle()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("users:1") == b"2"
        assert w.counts.stores == 2


async def test_flush_removes_the_keys_of_its_rule_alone(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        stamp = x.stamp()
        redis_client.mset({f"users:{i}": "v" for i in range(3000)} | {"usersx:1": "v", "other": "v"})
        w.flush()
        await w.settle()
        assert {key for key in redis_client.scan_iter() if not key.startswith(b"rowtap:")} == {b"usersx:1", b"other"}
        x.fill(b"old", stamp=stamp)
        x.store(b"old", key=b"users:2", stamp=stamp)
        await x.settle()
        assert redis_client.mget("users:1", "users:2") == [None, None]


async def test_several_rules_are_flushed_by_one_scan(redis_url, redis_client):
    rules = [make_rule("users"), make_rule("user_orders"), make_rule("zebras")]
    async with working(redis_url, rules=rules) as w:
        redis_client.mset({f"{r.table}:{i}": "v" for i in range(50) for r in rules} | {"u:1": "v"})
        w.backlog.put([w.change(Kind.FLUSH, b"", rule=r) for r in rules])
        assert w.backlog.pending == 3
        await w.settle()
        assert [key for key in redis_client.scan_iter() if not key.startswith(b"rowtap:")] == [b"u:1"]


@pytest.mark.timing("the fence lives for a second, in which all that must be refused is sent")
async def test_values_are_refused_for_a_fences_life_after_an_evict_that_may_commit_later(redis_url, redis_client):
    async with working(redis_url, fence_life=1000, heartbeat=0.1) as w:
        w.evict(may_commit_later=True)
        await w.settle()
        w.fill(b"f")
        w.store(b"f", key=b"users:2")
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [None, b"f"]
        w.store(b"s")
        await w.settle()
        assert redis_client.get("users:1") is None
        await asyncio.sleep(1.1)
        w.fill(b"after")
        await w.settle()
        assert redis_client.get("users:1") == b"after"


@pytest.mark.timing("the fence lives for a second, in which all that must be refused is sent")
async def test_values_of_a_table_are_refused_for_a_fences_life_after_a_flush_that_may_commit_later(
    redis_url, redis_client
):
    rules = [make_rule("users"), make_rule("b")]
    async with working(redis_url, rules=rules, fence_life=1000, heartbeat=0.1) as w:
        w.flush(may_commit_later=True)
        await w.settle()
        w.fill(b"f")
        w.fill(b"f", key=b"b:1", rule=rules[1])
        await w.settle()
        assert redis_client.mget("users:1", "b:1") == [None, b"f"]
        await asyncio.sleep(1.1)
        w.fill(b"f")
        await w.settle()
        assert redis_client.get("users:1") == b"f"


async def test_fill_older_than_half_a_fences_life_is_refused_and_a_store_evicts(redis_url, redis_client):
    async with working(redis_url, fence_life=1000, heartbeat=0.1) as w:
        stamp = w.stamp()
        redis_client.set("users:2", "v")
        await asyncio.sleep(0.6)
        w.fill(b"old", stamp=stamp)
        w.store(b"old", key=b"users:2", stamp=stamp)
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [None, None]
        assert (w.counts.refused, w.counts.evicts) == (1, 1)


@pytest.mark.timing("looks for the fence up to 50 ms before it may go")
async def test_fence_is_kept_for_its_life_and_not_for_ever(redis_url, redis_client):
    async with working(redis_url, fence_life=600, heartbeat=0.05) as w:
        w.evict()
        await w.settle()
        fences = lambda: {  # noqa: E731 - short and local
            key for name in ("rowtap:fences:0", "rowtap:fences:1") for key in redis_client.hkeys(name)
        }
        end = time.monotonic() + 0.55
        while time.monotonic() < end:
            assert b"users:1" in fences()
            await asyncio.sleep(0.02)
        await w.until(lambda: b"users:1" not in fences(), 3)


@pytest.mark.parametrize("name", ["rowtap:fences:0", "rowtap:fences:1"])
async def test_statements_under_way_are_refused_when_fences_were_evicted(redis_url, redis_client, name):
    async with working(redis_url) as w:
        stamp = w.stamp()
        w.store(b"v", key=b"users:2")
        await w.settle()
        redis_client.delete(name)
        w.fill(b"f", stamp=stamp)
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [None, b"v"]
        w.fill(b"f")
        await w.settle()
        assert redis_client.get("users:1") == b"f"


# Values.


async def test_hash_is_replaced_updated_and_removed(redis_url, redis_client):
    async with working(redis_url, rules=[make_rule(form=ValueFormat.HASH, ttl=50_000)]) as w:
        w.fill({b"a": b"1", b"b": b"2"})
        await w.settle()
        w.store({b"b": b"3", b"c": b"4"})
        await w.settle()
        assert redis_client.hgetall("users:1") == {b"b": b"3", b"c": b"4"}
        assert 40_000 < redis_client.pttl("users:1") <= 50_000
        w.store({b"c": b"5"}, partial=True, removed=(b"b",))
        w.store({b"c": b"5"}, key=b"users:2", partial=True)
        await w.settle()
        assert redis_client.hgetall("users:1") == {b"c": b"5"}
        assert not redis_client.exists("users:2")
        redis_client.delete("users:1")
        redis_client.set("users:1", "not a hash")
        w.store({b"c": b"6"}, partial=True)
        await w.settle()
        assert not redis_client.exists("users:1")
        w.store({})
        w.store({b"%d" % i: b"v" for i in range(10_000)}, key=b"users:3")
        await w.settle()
        assert not redis_client.exists("users:1")
        assert redis_client.hlen("users:3") == 10_000


async def test_keys_expire_after_the_ttl_less_some_jitter(redis_url, redis_client):
    async with working(redis_url, rules=[make_rule(ttl=10_000, ttl_jitter=0.5)]) as w:
        for i in range(50):
            w.store(b"v", key=b"users:%d" % i)
        await w.settle()
        lives = [redis_client.pttl(f"users:{i}") for i in range(50)]
        assert min(lives) > 4_000
        assert max(lives) <= 10_000
        assert max(lives) - min(lives) > 1_000


async def test_binary_keys_large_values_and_large_batches_arrive_whole(redis_url, redis_client):
    async with working(redis_url) as w:
        key = b"users:\x00\xff\r\n*?"
        w.store(b"\x00" * 5_000_000, key=key)
        for i in range(2500):
            w.fill(b"%d" % i, key=b"users:%d" % i)
        await w.settle()
        assert redis_client.strlen(key) == 5_000_000
        assert redis_client.mget([f"users:{i}" for i in range(2500)]) == [b"%d" % i for i in range(2500)]


# All at once.


ROUNDS = 4


class Row:
    """What PostgreSQL would hold: a value, and writes that become true at one instant."""

    def __init__(self):
        self.value = 0


async def statement(w, row, key, dice, delay, client=None):
    """One statement of a session: forwarded, takes effect, answered. With ``client`` its writes are blocked before."""
    stamp = w.stamp()
    await asyncio.sleep(dice.random() * delay)
    kind = dice.choice(
        ["fill", "fill", "store", "evict", "flush"] if dice.random() < 0.1 else ["fill", "store", "evict"]
    )
    block = None
    if client is not None and kind != "fill":
        block = w.backlog.block([w.change(Kind.FLUSH if kind == "flush" else Kind.EVICT, key, stamp=stamp)])
        assert await block.wait(10)
    undone = block is not None and dice.random() < 0.2
    if kind != "fill" and not undone:
        row.value += 1
    value = b"%d" % row.value
    await asyncio.sleep(dice.random() * delay)
    if kind in ("fill", "store") and not undone:
        getattr(w, kind)(value, key=key, stamp=stamp)
    elif kind == "evict" and not undone:
        w.evict(key=key, stamp=stamp)
    elif not undone:
        w.flush(stamp=stamp)
    if block is not None:
        w.backlog.release(block)
        for _ in range(3):
            seen = client.get(key)
            assert seen is None or int(seen) >= int(value), "stale: older than a write that was acknowledged"
            await asyncio.sleep(dice.random() * delay / 3)


@pytest.mark.parametrize("before_commit", [False, True], ids=["", "before_commit"])
@pytest.mark.parametrize("seed", range(3))
async def test_two_workers_on_the_same_few_keys_leave_nothing_stale(redis_url, redis_client, seed, before_commit):
    dice = random.Random(seed)
    rows = {b"users:%d" % i: Row() for i in range(4)}
    client = redis_client if before_commit else None
    present = 0
    async with working(redis_url) as w, working(redis_url, "x", flush_interval=0.004) as x:
        for _ in range(ROUNDS):
            jobs = []
            for _ in range(150):
                key = dice.choice(list(rows))
                worker, own = dice.choice((w, x)), random.Random(dice.random())
                jobs.append(statement(worker, rows[key], key, own, 0.03, client))
            await asyncio.gather(*jobs)
            await w.settle()
            await x.settle()
            for key, row in rows.items():
                value = redis_client.get(key)
                assert value in (None, b"%d" % row.value), "stale"
            # A quiet moment: what is read now must stay.
            for worker in (w, x):
                worker.store(b"v", key=b"users:99")
            await w.settle()
            await x.settle()
            for key, row in rows.items():
                w.fill(b"%d" % row.value, key=key)
            await w.settle()
            present += sum(redis_client.get(key) == b"%d" % row.value for key, row in rows.items())
    assert present == ROUNDS * len(rows)


async def test_check_says_that_redis_does_not_answer(unused_tcp_port):
    worker = Worker(f"redis://127.0.0.1:{unused_tcp_port}")
    assert "does not answer" in (await worker.writer.check())[0]
