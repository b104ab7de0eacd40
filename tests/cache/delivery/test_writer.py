"""The writer against a real server: what is accepted and refused, and every way Redis can go away."""

import asyncio
import random
import time

import pytest
import redis

from cache.changes import Kind
from cache.rules import ValueFormat
from proxy.demo.servers import Valkey
from tests.cache.delivery.writing import Worker, make_rule, working


@pytest.fixture
def server():
    """A server of the test's own, to be killed, paused and restarted."""
    with Valkey() as server:
        yield server


# Fences.


async def test_fill_store_and_evict(redis_url, redis_client):
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
async def test_a_fill_dated_before_a_write_is_refused(redis_url, redis_client, write):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        stamp = w.stamp()
        getattr(x, write)(*([b"new"] if write == "store" else []))
        await x.settle()
        w.fill(b"old", stamp=stamp)
        await w.settle()
        assert redis_client.get("users:1") == (b"new" if write == "store" else None)
        assert w.counts.refused == 1


async def test_a_fill_dated_after_a_write_is_accepted(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        x.evict()
        await x.settle()
        w.store(b"other", key=b"users:2")
        await w.settle()
        w.fill(b"new")
        await w.settle()
        assert redis_client.get("users:1") == b"new"


async def test_stores_of_two_workers_that_overlapped_evict(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        stamp = w.stamp()
        x.store(b"x")
        await x.settle()
        w.store(b"w", stamp=stamp)
        await w.settle()
        assert redis_client.get("users:1") is None
        assert (w.counts.stores, w.counts.evicts) == (0, 1)


async def test_a_write_after_this_workers_own_unanswered_one_stays(server):
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


async def test_a_flush_removes_the_rules_keys_only(redis_url, redis_client):
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


async def test_several_rules_flush_in_one_pass(redis_url, redis_client):
    rules = [make_rule("users"), make_rule("user_orders"), make_rule("zebras")]
    async with working(redis_url, rules=rules) as w:
        redis_client.mset({f"{r.table}:{i}": "v" for i in range(50) for r in rules} | {"u:1": "v"})
        w.backlog.put([w.change(Kind.FLUSH, b"", rule=r) for r in rules])
        assert w.backlog.pending == 3
        await w.settle()
        assert [key for key in redis_client.scan_iter() if not key.startswith(b"rowtap:")] == [b"u:1"]


async def test_hold_refuses_fills_and_stores_that_come_later(redis_url, redis_client):
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


async def test_a_held_flush_refuses_fills_of_its_table(redis_url, redis_client):
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


async def test_what_is_older_than_half_a_fences_life_is_refused(redis_url, redis_client):
    async with working(redis_url, fence_life=1000, heartbeat=0.1) as w:
        stamp = w.stamp()
        redis_client.set("users:2", "v")
        await asyncio.sleep(0.6)
        w.fill(b"old", stamp=stamp)
        w.store(b"old", key=b"users:2", stamp=stamp)
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [None, None]
        assert (w.counts.refused, w.counts.evicts) == (1, 1)


async def test_fences_last_for_their_life_and_not_for_ever(redis_url, redis_client):
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
async def test_evicted_fences_refuse_what_is_under_way(redis_url, redis_client, name):
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


# Blocks.


def kept(client, key=b"users:1"):
    """The holders of a key's fence, in whichever generation it is."""
    fence = client.hget("rowtap:fences:0", key) or client.hget("rowtap:fences:1", key) or b""
    return [hold.partition(b"@")[2] for hold in fence.split()[1:]]


async def test_a_block_keeps_a_key_absent_until_its_outcome(redis_url, redis_client):
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
        assert redis_client.get("users:1") == b"new", "the holder's own write"
        assert kept(redis_client) == []
        x.fill(b"old", stamp=reader)
        await x.settle()
        assert redis_client.get("users:1") == b"new", "it began before the release"


async def test_a_block_that_came_to_nothing_is_only_lifted(redis_url, redis_client):
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


async def test_a_block_makes_the_stores_of_others_evict(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        stamp = w.stamp()
        block = w.backlog.block([w.change(Kind.EVICT, stamp=stamp)])
        assert await block.wait(5)
        x.store(b"x")
        await x.settle()
        assert redis_client.get("users:1") is None
        assert len(kept(redis_client)) == 1
        w.store(b"w", stamp=stamp)
        w.backlog.release(block)
        await w.settle()
        assert redis_client.get("users:1") is None, "the two writes overlapped"
        w.fill(b"w")
        await w.settle()
        assert redis_client.get("users:1") == b"w"


async def test_blocks_of_the_same_key_end_one_by_one(redis_url, redis_client):
    async with working(redis_url) as w, working(redis_url, "x") as x:
        first = w.backlog.block([w.change(Kind.EVICT)])
        second = x.backlog.block([x.change(Kind.EVICT)])
        assert await first.wait(5)
        assert await second.wait(5)
        assert len(kept(redis_client)) == 2
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


async def test_writes_of_a_hot_key_that_follow_each_other_stay_warm(redis_url, redis_client):
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


async def test_a_block_of_a_rule(redis_url, redis_client):
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


async def test_a_table_wide_write_under_its_block(redis_url, redis_client):
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
async def test_what_a_rules_block_removed_is_not_looked_for_again(server, value):
    # On a server where nobody else looks for keys.
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
            assert scans(client) > before, "somebody else may have set keys of the rule's form"


async def test_a_dead_workers_block_ends_by_itself(redis_url, redis_client):
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


async def test_nobody_waits_for_a_redis_that_is_gone(server):
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
            await w.until(lambda: len(kept(client)) == 1)
            await w.settle()
            w.fill(b"v")
            w.fill(b"v", key=b"users:3")
            await w.settle()
            assert client.mget("users:1", "users:3") == [None, b"v"], "a new epoch is asked for what the old one kept"
            for each in (block, late):
                w.backlog.release(each)
            await w.settle()
            assert kept(client) == []


async def test_a_paused_redis_costs_the_bounded_wait(server):
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


async def test_a_block_on_a_full_redis(server):
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


@pytest.mark.parametrize("hold", ["block", "evict", "flush"])
async def test_evicted_fences_take_no_hold_with_them(redis_url, redis_client, hold):
    facts = {"fence_life": 1000, "heartbeat": 0.1}
    async with working(redis_url, **facts) as w, working(redis_url, "x", **facts) as x:
        if hold == "block":
            assert await w.backlog.block([w.change(Kind.EVICT)]).wait(5)
        else:
            getattr(w, hold)(may_commit_later=True)
            await w.settle()
        redis_client.delete("rowtap:fences:0", "rowtap:fences:1")
        x.evict(key=b"users:9")
        await x.settle()
        x.fill(b"old")
        await x.settle()
        assert redis_client.get("users:1") is None
        if hold != "block":
            await asyncio.sleep(1.1)
            x.fill(b"new")
            await x.settle()
            assert redis_client.get("users:1") == b"new"


# Values.


async def test_hashes(redis_url, redis_client):
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


async def test_ttl_and_jitter(redis_url, redis_client):
    async with working(redis_url, rules=[make_rule(ttl=10_000, ttl_jitter=0.5)]) as w:
        for i in range(50):
            w.store(b"v", key=b"users:%d" % i)
        await w.settle()
        lives = [redis_client.pttl(f"users:{i}") for i in range(50)]
        assert min(lives) > 4_000
        assert max(lives) <= 10_000
        assert max(lives) - min(lives) > 1_000


async def test_binary_keys_and_large_values_and_large_batches(redis_url, redis_client):
    async with working(redis_url) as w:
        key = b"users:\x00\xff\r\n*?"
        w.store(b"\x00" * 5_000_000, key=key)
        for i in range(2500):
            w.fill(b"%d" % i, key=b"users:%d" % i)
        await w.settle()
        assert redis_client.strlen(key) == 5_000_000
        assert redis_client.mget([f"users:{i}" for i in range(2500)]) == [b"%d" % i for i in range(2500)]


# What happens to Redis.


async def test_killed_and_restarted_empty(server):
    async with working(server.url) as w:
        w.store(b"v")
        await w.settle()
        stamp = w.stamp()
        server.kill()
        await w.until(lambda: not w.writer.connected)
        w.store(b"w", key=b"users:2")
        w.fill(b"f", key=b"users:3")
        assert w.backlog.pending == 2
        server.start()
        await w.settle()
        w.fill(b"old", key=b"users:4", stamp=stamp)
        await w.settle()
        with redis.Redis.from_url(server.url) as client:
            assert [k for k in client.scan_iter() if not k.startswith(b"rowtap:")] == []
            w.fill(b"new")
            await w.settle()
            assert client.get("users:1") == b"new"
        assert w.backlog.counts.redis_reconnects == 1
        assert w.backlog.counts.epochs == 1


@pytest.mark.parametrize("running", [True, False], ids=["worker stays", "worker starts anew"])
async def test_restarted_from_an_old_snapshot(server, running):
    with redis.Redis.from_url(server.url) as client:
        async with working(server.url) as w:
            w.store(b"old")
            await w.settle()
            client.save()
            w.store(b"new")
            await w.settle()
            if running:
                server.kill()
                server.start()
                await w.until(lambda: w.backlog.counts.epochs == 1)
                await w.settle()
                assert client.get("users:1") is None
            else:
                assert await w.writer.drain(5)
        if not running:
            server.kill()
            server.start()
            assert client.get("users:1") == b"old"
            async with working(server.url, "another"):
                assert client.get("users:1") is None


@pytest.mark.parametrize("command", ["flushall", "rewind", "forget"])
async def test_lost_beneath_a_live_connection(redis_url, redis_client, command):
    async with working(redis_url) as w:
        stamp = w.stamp()
        w.store(b"v")
        await w.settle()
        if command == "flushall":
            redis_client.flushall()
        elif command == "rewind":
            redis_client.hset("rowtap:state", "seq", 5)
            redis_client.hset("rowtap:state", "w:w", f"5 {int(time.time() * 1000)} {w.writer.registration.token}")
        else:
            redis_client.hdel("rowtap:state", "w:w")
        w.fill(b"old", key=b"users:2", stamp=stamp)
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [None, None]
        w.fill(b"new")
        await w.settle()
        assert redis_client.get("users:1") == b"new"


async def test_paused(server):
    async with working(server.url, timeout=0.5) as w:
        w.store(b"v")
        await w.settle()
        server.pause()
        w.store(b"w")
        await w.until(lambda: not w.writer.connected)
        assert w.backlog.pending
        server.resume()
        await w.settle()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("users:1") is None, "sent twice: the first may have been applied"
            w.fill(b"x")
            await w.settle()
            assert client.get("users:1") == b"x"


async def test_full(server):
    with redis.Redis.from_url(server.url) as client:
        async with working(server.url) as w:
            w.store(b"old")
            await w.settle()
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            assert any("noeviction" in problem for problem in await w.writer.check())
            w.store(b"new")
            w.fill(b"f", key=b"users:2")
            await w.settle()
            assert client.mget("users:1", "users:2") == [None, None]
            client.config_set("maxmemory", 0)
            w.store(b"newer")
            await w.settle()
            assert client.get("users:1") == b"newer"


async def test_read_only_replica(server):
    with Valkey(replica_of=server) as replica, redis.Redis.from_url(replica.url) as client:
        worker = Worker(replica.url)
        deadline = time.monotonic() + 20
        while client.info("replication")["master_link_status"] != "up" and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert any("replica" in problem for problem in await worker.writer.check())
        async with working(replica.url, settle=False) as w:
            w.evict()
            await asyncio.sleep(0.3)
            assert not w.writer.connected
            assert w.backlog.pending
            client.replicaof("NO", "ONE")
            await w.settle()


# Workers.


async def test_a_worker_that_ends_well_leaves_the_keys(redis_url, redis_client):
    async with working(redis_url) as w:
        w.store(b"v")
        assert await w.writer.drain(5)
        assert not redis_client.hexists("rowtap:state", "w:w")
    async with working(redis_url) as w:
        assert redis_client.get("users:1") == b"v"


@pytest.mark.parametrize("name", ["w", "neighbour"])
async def test_a_worker_that_dies_has_its_tables_flushed(redis_url, redis_client, name):
    rules = [make_rule("users"), make_rule("b")]
    async with working(redis_url, rules=rules) as w:
        w.store(b"v")
        w.store(b"v", key=b"b:1", rule=rules[1])
        await w.settle()
    async with working(redis_url, name, lease=0.2) as other:
        await other.until(lambda: redis_client.get("users:1") is None)
        await other.settle()
        other.fill(b"v")
        await other.settle()
        assert redis_client.get("users:1") is None, "the dead one's last statements may still commit"
        assert redis_client.get("b:1") == b"v", "not this worker's table"
    async with working(redis_url, "third", rules=rules, lease=0.2) as third:
        await third.until(lambda: redis_client.get("b:1") is None)


async def test_a_rule_with_another_meaning_is_flushed(redis_url, redis_client):
    async with working(redis_url) as w:
        w.store(b"v")
        assert await w.writer.drain(5)
    async with working(redis_url, rules=[make_rule(form=ValueFormat.JSON)]):
        assert redis_client.get("users:1") is None


async def test_rules_that_change_while_running(redis_url, redis_client):
    old, gone = make_rule(), make_rule("gone")
    async with working(redis_url, rules=[old, gone]) as w:
        w.store(b"v")
        w.store(b"v", key=b"gone:1", rule=gone)
        await w.settle()
        w.backlog.configure([make_rule()])
        w.writer.reconfigured()
        await w.settle()
        assert redis_client.mget("users:1", "gone:1") == [b"v", None]
        w.store(b"w", rule=old)
        await w.settle()
        assert redis_client.get("users:1") == b"w"
        w.backlog.configure([make_rule(form=ValueFormat.JSON)])
        w.writer.reconfigured()
        w.fill(b"x", rule=old)
        await w.settle()
        assert redis_client.get("users:1") is None


async def test_drain_gives_up_in_time_and_says_so(server):
    async with working(server.url) as w:
        server.pause()
        w.store(b"v")
        begun = time.monotonic()
        assert not await w.writer.drain(0.3)
        assert time.monotonic() - begun < 3
        server.resume()


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
async def test_two_workers_on_the_same_few_keys(redis_url, redis_client, seed, before_commit):
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


async def test_check_of_nothing(unused_tcp_port):
    worker = Worker(f"redis://127.0.0.1:{unused_tcp_port}")
    assert "does not answer" in (await worker.writer.check())[0]
