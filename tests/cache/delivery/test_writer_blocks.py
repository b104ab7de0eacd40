"""Blocks against a real server: keys that stay absent until the outcome of a write is known."""

import asyncio
import time

import pytest
import redis

from cache.changes import Kind
from tests.cache.delivery.writing import make_rule, working


def block_names(client, key=b"users:1"):
    """The names of the blocks on a key's fence, in whichever generation it is."""
    fence = client.hget("rowtap:fences:0", key) or client.hget("rowtap:fences:1", key) or b""
    return [block.partition(b"@")[2] for block in fence.split()[1:]]


async def test_blocked_key_stays_absent_until_its_outcome(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        w.fill(b"old")
        await w.settle()
        stamp, reader = w.stamp(), x.stamp()
        block = w.backlog.block([w.change(Kind.EVICT, stamp=stamp)])
        assert await block.wait(5)
        assert redis_client.get("users:1") is None
        x.fill(b"old", stamp=reader)
        x.fill(b"old", stamp=x.stamp())
        w.fill(b"old", stamp=w.stamp())
        await x.settle()
        await w.settle()
        assert redis_client.get("users:1") is None
        w.store(b"new", stamp=stamp)
        w.backlog.release(block)
        await w.settle()
        assert redis_client.get("users:1") == b"new", "the write that the block is for"
        assert block_names(redis_client) == []
        x.fill(b"old", stamp=reader)
        await x.settle()
        assert redis_client.get("users:1") == b"new", "it began before the release"


async def test_block_is_requested_again_when_redis_does_not_know_the_worker(redis_url, redis_client):
    async with working(redis_url) as w:
        w.store(b"old")
        await w.settle()
        redis_client.hdel("rowtap:state", "w:w")
        block = w.backlog.block([w.change(Kind.EVICT)])
        assert await block.wait(5)
        assert redis_client.get("users:1") is None
        assert redis_client.hexists("rowtap:state", "w:w")
        w.backlog.release(block)


async def test_block_of_a_write_that_came_to_nothing_leaves_no_fence(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        reader = x.stamp()
        block = w.backlog.block([w.change(Kind.EVICT), w.change(Kind.EVICT, b"users:2")])
        assert await block.wait(5)
        x.fill(b"v", stamp=reader)
        await x.settle()
        assert redis_client.get("users:1") is None
        w.backlog.release(block)
        await w.settle()
        assert not redis_client.hexists("rowtap:fences:0", "users:1")
        assert not redis_client.hexists("rowtap:fences:1", "users:1")
        x.fill(b"v", stamp=reader)
        await x.settle()
        assert redis_client.get("users:1") == b"v", "nothing was written"


async def test_store_of_another_worker_evicts_a_blocked_key(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        stamp = w.stamp()
        block = w.backlog.block([w.change(Kind.EVICT, stamp=stamp)])
        assert await block.wait(5)
        x.store(b"x")
        await x.settle()
        assert redis_client.get("users:1") is None
        assert len(block_names(redis_client)) == 1
        w.store(b"w", stamp=stamp)
        w.backlog.release(block)
        await w.settle()
        assert redis_client.get("users:1") is None, "the two writes overlapped"
        w.fill(b"w")
        await w.settle()
        assert redis_client.get("users:1") == b"w"


async def test_key_with_two_blocks_stays_absent_until_both_are_released(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        first = w.backlog.block([w.change(Kind.EVICT)])
        second = x.backlog.block([x.change(Kind.EVICT)])
        assert await first.wait(5)
        assert await second.wait(5)
        assert len(block_names(redis_client)) == 2
        w.backlog.release(first)
        await w.settle()
        x.fill(b"v")
        await x.settle()
        assert redis_client.get("users:1") is None
        x.backlog.release(second)
        await x.settle()
        x.fill(b"v")
        await x.settle()
        assert redis_client.get("users:1") == b"v"


async def test_next_write_of_a_hot_key_is_stored_under_its_own_block(redis_url, redis_client):
    async with working(redis_url, flush_interval=0.02) as w:
        first, stamp = w.backlog.block([w.change(Kind.EVICT)]), w.stamp()
        assert await first.wait(5)
        w.store(b"1", stamp=stamp)
        w.backlog.release(first)
        second, stamp = w.backlog.block([w.change(Kind.EVICT)]), w.stamp()
        assert await second.wait(5)
        await w.settle()
        assert redis_client.get("users:1") is None
        w.store(b"2", stamp=stamp)
        w.backlog.release(second)
        await w.settle()
        assert redis_client.get("users:1") == b"2"


async def test_blocked_rule_loses_its_keys_and_takes_no_value_until_its_outcome(redis_url, redis_client):
    rules = [make_rule("users"), make_rule("b")]
    async with working(redis_url, rules=rules) as w, working(redis_url, "x", rules=rules) as x:
        redis_client.mset({f"users:{i}": "old" for i in range(3000)} | {"b:1": "v"})
        stamp, reader = w.stamp(), x.stamp()
        block = w.backlog.block([w.change(Kind.FLUSH, b"")])
        assert await block.wait(5)
        assert {key for key in redis_client.scan_iter() if not key.startswith(b"rowtap:")} == {b"b:1"}
        x.fill(b"old", stamp=reader)
        x.store(b"x", key=b"users:2", stamp=reader)
        x.fill(b"w", key=b"b:1", rule=rules[1])
        await x.settle()
        assert redis_client.mget("users:1", "users:2", "b:1") == [None, None, b"w"]
        w.store(b"new", stamp=stamp)
        w.store(b"new", key=b"users:2", stamp=stamp)
        w.backlog.release(block)
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [b"new", None], "another wrote the second one meanwhile"
        x.fill(b"old", stamp=reader)
        x.fill(b"v", key=b"users:3", stamp=x.stamp())
        await x.settle()
        assert redis_client.mget("users:1", "users:3") == [b"new", b"v"]


async def test_flush_under_its_own_block_refuses_earlier_fills_and_takes_later_ones(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        reader = x.stamp()
        block = w.backlog.block([w.change(Kind.FLUSH, b"")])
        assert await block.wait(5)
        w.flush()
        w.backlog.release(block)
        await w.settle()
        x.fill(b"old", stamp=reader)
        await x.settle()
        assert redis_client.get("users:1") is None
        w.fill(b"new")
        await w.settle()
        assert redis_client.get("users:1") == b"new"


def scans(client):
    return client.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"]


@pytest.mark.parametrize("value", [False, True], ids=["", "a value came"])
async def test_flush_under_its_own_block_scans_only_if_a_value_came_since(server, value):
    # On a server where no other test looks for keys.
    async with working(server.url) as w, working(server.url, "x") as x:
        with redis.Redis.from_url(server.url) as client:
            block = w.backlog.block([w.change(Kind.FLUSH, b"")])
            assert await block.wait(5)
            before = scans(client)
            assert before
            if value:
                client.hdel("rowtap:state", "t:public.users")  # as if the block had run out
                x.fill(b"old")
                await x.settle()
                assert client.get("users:1") == b"old"
            w.flush()
            w.backlog.release(block)
            await w.settle()
            assert client.get("users:1") is None
            assert (scans(client) > before) == value
            assert w.counts.flushes == 3
            before = scans(client)
            w.flush()
            await w.settle()
            assert scans(client) > before, "another program may have set keys of the rule's form"


@pytest.mark.timing("the worker must renew a block that Redis keeps for a second")
async def test_block_is_renewed_while_its_worker_lives_and_ends_after_a_fences_life(redis_url, redis_client):
    async with working(redis_url, "x", fence_life=1000, heartbeat=0.1) as x:
        async with working(redis_url, fence_life=1000, heartbeat=0.1) as w:
            block = w.backlog.block([w.change(Kind.EVICT), w.change(Kind.EVICT, b"users:2")])
            assert await block.wait(5)
            await asyncio.sleep(1.5)
            x.fill(b"v")
            await x.settle()
            assert redis_client.get("users:1") is None, "it is renewed as long as its worker lives"
        await asyncio.sleep(1.1)
        x.fill(b"v")
        await x.settle()
        assert redis_client.get("users:1") == b"v"


async def test_wait_for_a_block_ends_at_once_when_redis_is_gone(server):
    async with working(server.url) as w:
        with redis.Redis.from_url(server.url) as client:
            w.fill(b"old")
            await w.settle()
            block = w.backlog.block([w.change(Kind.EVICT)])
            assert await block.wait(5)
            server.kill()
            await w.until(lambda: not w.writer.connected)
            begun = time.monotonic()
            late = w.backlog.block([w.change(Kind.EVICT, b"users:2")])
            assert not await late.wait(5)
            assert time.monotonic() - begun < 2.5
            server.start()
            await w.until(lambda: late.confirmed)
            await w.until(lambda: len(block_names(client)) == 1)
            await w.settle()
            w.fill(b"v")
            w.fill(b"v", key=b"users:3")
            await w.settle()
            assert client.mget("users:1", "users:3") == [None, b"v"], "a new epoch is asked for what the old one kept"
            for each in (block, late):
                w.backlog.release(each)
            await w.settle()
            assert block_names(client) == []


async def test_wait_for_a_block_ends_in_time_when_redis_is_paused(server):
    async with working(server.url) as w:
        server.pause()
        begun = time.monotonic()
        block = w.backlog.block([w.change(Kind.EVICT)])
        assert not await block.wait(0.05)
        assert time.monotonic() - begun < 2.5
        server.resume()
        assert await block.wait(5) or await w.until(lambda: block.confirmed) is None
        w.backlog.release(block)
        await w.settle()


async def test_block_removes_keys_from_a_full_redis(server):
    with redis.Redis.from_url(server.url) as client:
        async with working(server.url) as w:
            w.store(b"old")
            await w.settle()
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            stamp = w.stamp()
            block = w.backlog.block([w.change(Kind.EVICT, stamp=stamp), w.change(Kind.FLUSH, b"")])
            assert await block.wait(5)
            assert client.get("users:1") is None
            w.store(b"new", stamp=stamp)
            w.backlog.release(block)
            await w.settle()
            client.config_set("maxmemory", 0)
            assert client.get("users:1") is None
            w.fill(b"new")
            await w.settle()
            assert client.get("users:1") == b"new"


@pytest.mark.timing("the fence lives for a second, in which all that must be refused is sent")
@pytest.mark.parametrize("reason", ["block", "evict", "flush"])
async def test_values_are_refused_when_fences_were_evicted_that_had_blocks(redis_url, redis_client, reason):
    facts = {"fence_life": 1000, "heartbeat": 0.1}
    async with working(redis_url, **facts) as w, working(redis_url, "x", **facts) as x:
        if reason == "block":
            assert await w.backlog.block([w.change(Kind.EVICT)]).wait(5)
        else:
            getattr(w, reason)(may_commit_later=True)
            await w.settle()
        redis_client.delete("rowtap:fences:0", "rowtap:fences:1")
        x.evict(key=b"users:9")
        await x.settle()
        x.fill(b"old")
        await x.settle()
        assert redis_client.get("users:1") is None
        if reason != "block":
            await asyncio.sleep(1.1)
            x.fill(b"new")
            await x.settle()
            assert redis_client.get("users:1") == b"new"
