"""The writer against a real server that restarts, loses data, stands still or is full."""

import asyncio
import time

import pytest
import redis

from cache.delivery.writer import Writer
from proxy.demo.servers import Valkey
from tests.cache.delivery.writing import Worker, working


async def test_tables_are_flushed_after_a_restart_with_nothing_kept(server):
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
async def test_tables_are_flushed_after_a_restart_from_an_old_snapshot(server, running):
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
async def test_tables_are_flushed_when_data_is_lost_under_a_live_connection(redis_url, redis_client, command):
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


async def test_batch_without_an_answer_comes_back_as_evicts(server):
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


async def test_full_redis_loses_keys_and_takes_no_values(server):
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


async def test_batch_waits_while_redis_is_a_read_only_replica(server):
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


# Ending.


async def test_drain_gives_up_in_time_and_says_so(server):
    async with working(server.url) as w:
        server.pause()
        w.store(b"v")
        begun = time.monotonic()
        assert not await w.writer.drain(0.3)
        assert time.monotonic() - begun < 3
        server.resume()


async def test_drain_without_a_running_writer_says_whether_anything_is_left(unused_tcp_port):
    worker = Worker(f"redis://127.0.0.1:{unused_tcp_port}")
    assert await worker.writer.drain(5)
    worker.store(b"v")
    assert not await worker.writer.drain(5)


async def test_drain_ends_a_writer_that_never_reached_redis(unused_tcp_port):
    async with working(f"redis://127.0.0.1:{unused_tcp_port}", settle=False) as w:
        await w.until(lambda: w.events)
        assert await w.writer.drain(5)


async def test_registration_stays_if_redis_is_gone_at_the_end(server):
    async with working(server.url) as w:
        server.kill()
        assert await w.writer.drain(5)
        assert "could not take leave of redis" in w.events


async def test_writer_works_without_a_log(redis_url, redis_client):
    worker = Worker(redis_url)
    writer = Writer(worker.backlog, redis_url, worker="w")
    running = asyncio.create_task(writer.run())
    await worker.until(lambda: writer.connected and not worker.backlog.pending)
    worker.store(b"v")
    assert await writer.drain(5)
    await running
    assert redis_client.get("users:1") == b"v"
