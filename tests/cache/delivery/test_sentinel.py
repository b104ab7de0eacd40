"""The writer behind Redis Sentinel: real sentinels, real failovers, and sentinels that do not lead to a primary."""

import asyncio
import contextlib
import random
import re
from types import SimpleNamespace

import pytest
import redis

from proxy.demo.servers import Valkey, free_port
from tests.cache.delivery.writing import Worker, load, working
from tests.fix_postgres import make_certificate
from tests.sentinel import PATIENCE, Sentinel, addresses, follows_primary, start_sentinel, url, wait


def clients(stack, *servers):
    return [stack.enter_context(redis.Redis.from_url(server.url)) for server in servers]


def told_to_fail_over(sentinel):
    """False as long as the sentinel has not heard enough of the replica."""
    try:
        sentinel.execute_command("SENTINEL", "FAILOVER", "main")
    except redis.ResponseError as error:
        if "NOGOODSLAVE" not in str(error):
            raise
        return False
    return True


async def problem(url, **options):
    """What is wrong with it, as `rowtap check` says it."""
    [found] = await Worker(url, **options).writer.check()
    return found


@contextlib.asynccontextmanager
async def failing(url):
    """A worker with something to write that has tried in vain several times."""
    async with working(url, settle=False) as w:
        w.store(b"v")
        await w.until(lambda: w.events.count("redis lost") >= 3)
        assert not w.writer.connected
        assert w.backlog.pending
        yield w


@pytest.fixture
def primary(server):
    return server


@pytest.fixture
def service(primary):
    """A primary, a replica and a sentinel that knows of both, with clients."""
    with contextlib.ExitStack() as stack:
        replica = stack.enter_context(Valkey(replica_of=primary))
        sentinel = stack.enter_context(contextlib.closing(start_sentinel(primary, replica)))
        old, new, asked = clients(stack, primary, replica, sentinel)
        yield SimpleNamespace(primary=primary, replica=replica, sentinel=sentinel, old=old, new=new, asked=asked)


# Failovers.


async def test_nothing_is_stale_after_a_failover_that_lost_writes(service):
    old, new = service.old, service.new
    async with working(url(service.sentinel)) as w:
        assert await w.writer.check() == []
        w.fill(b"1", key=b"users:1")
        w.store(b"before", key=b"users:2")
        await w.settle()
        await w.until(lambda: new.get("users:2") == b"before", PATIENCE)
        # From here on the replica is shut out, and no other client is.
        old.config_set("requirepass", "secret")
        old.client_kill_filter(_type="replica")
        await w.until(lambda: not follows_primary(new), PATIENCE)
        w.store(b"lost", key=b"users:2")
        await w.settle()
        assert (old.get("users:2"), new.get("users:2")) == (b"lost", b"before")
        service.primary.kill()
        await w.until(lambda: not w.writer.connected, PATIENCE)
        w.store(b"meanwhile", key=b"users:3")
        await w.settle(PATIENCE)
        assert new.info("replication")["role"] == "master"
        assert w.backlog.counts.epochs == 1
        assert new.get("users:2") is None, "what the row was before the write that is lost"
        assert new.get("users:3") in (None, b"meanwhile")
        for key in (b"users:2", b"users:3"):
            w.store(b"now", key=key)
        await w.settle()
        assert new.mget("users:2", "users:3") == [b"now", b"now"]

        # The old primary comes back as one, empty, until the sentinel finds it.
        connections = w.backlog.counts.redis_reconnects
        await asyncio.to_thread(service.primary.start)
        with redis.Redis.from_url(service.primary.url) as back:
            w.store(b"on", key=b"users:3")
            await w.until(lambda: follows_primary(back), PATIENCE)
            w.store(b"and on", key=b"users:2")
            await w.settle()
            await w.until(lambda: back.mget("users:2", "users:3") == [b"and on", b"on"], PATIENCE)
        assert w.backlog.counts.redis_reconnects == connections
        assert w.backlog.counts.epochs == 1


async def test_nothing_is_stale_after_a_failover_on_command_under_load(service):
    """The old primary lives, and is a read-only replica the next moment."""
    dice = random.Random(2)
    rows = dict.fromkeys((b"users:%d" % i for i in range(50)), 0)
    async with working(url(service.sentinel)) as w, working(url(service.sentinel), "x") as x:
        going = True
        sessions = [asyncio.create_task(load(worker, rows, dice, lambda: going)) for worker in (w, x) for _ in range(5)]
        await asyncio.to_thread(wait, lambda: told_to_fail_over(service.asked))
        for worker in (w, x):
            await worker.until(lambda worker=worker: worker.backlog.counts.epochs == 1, PATIENCE)
        await asyncio.sleep(0.1)
        going = False
        await asyncio.gather(*sessions)
        await w.settle(PATIENCE)
        await x.settle(PATIENCE)
        assert service.new.info("replication")["role"] == "master"
        for key, value in rows.items():
            assert service.new.get(key) in (None, b"%d" % value)


async def test_connection_moves_when_another_server_is_called_primary(primary):
    """As when the first one is cut off from the sentinels and not from us: it goes on answering as a primary."""
    with Valkey() as other, Sentinel(primary) as sentinel, contextlib.ExitStack() as stack:
        client, asked = clients(stack, other, sentinel)
        async with working(url(sentinel), heartbeat=0.2) as w:
            sentinel.kill()
            await asyncio.sleep(2.5)
            assert w.events == ["redis connected"], "without sentinels it stays"
            await asyncio.to_thread(sentinel.start)
            asked.execute_command("SENTINEL", "REMOVE", "main")
            asked.execute_command("SENTINEL", "MONITOR", "main", other.host, other.port, 1)
            await w.until(lambda: w.backlog.counts.redis_reconnects == 1, PATIENCE)
            await w.settle()
            assert w.backlog.counts.epochs == 1
            w.store(b"v")
            await w.settle()
            assert client.get("users:1") == b"v"


# Sentinels that do not lead to a primary.


async def test_service_that_sentinels_do_not_know_is_an_error_until_they_do(primary):
    with Sentinel(primary) as sentinel, redis.Redis.from_url(sentinel.url) as asked:
        strange = url(sentinel, service="other")
        found = await problem(strange)
        assert f"primary of 'other' ({addresses(sentinel)}: does not know the service)" in found
        async with failing(strange) as w:
            asked.execute_command("SENTINEL", "MONITOR", "other", primary.host, primary.port, 1)
            await w.settle(PATIENCE)


async def test_sentinels_that_cannot_be_reached_are_named(primary):
    with Sentinel(primary) as sentinel:
        sentinel.kill()
        nowhere = SimpleNamespace(host="127.0.0.1", port=free_port())
        found = await problem(url(nowhere, sentinel))
        assert addresses(nowhere) in found
        assert addresses(sentinel) in found
        async with failing(url(nowhere, sentinel)) as w:
            await asyncio.to_thread(sentinel.start)
            await w.settle(PATIENCE)


async def test_next_sentinel_is_asked_when_the_first_one_stands_still(primary):
    with Sentinel(primary) as first, Sentinel(primary) as second, redis.Redis.from_url(primary.url) as client:
        first.pause()
        async with working(url(first, second)) as w:
            w.store(b"v")
            await w.settle()
            assert client.get("users:1") == b"v"
        second.pause()
        assert addresses(second) in await problem(url(first, second), timeout=1)
        first.resume()
        second.resume()


async def test_dead_primary_that_sentinels_still_name_is_an_error(primary):
    with Sentinel(primary, down_after=3_600_000) as sentinel:
        primary.kill()
        assert f":{primary.port}" in await problem(url(sentinel))
        async with failing(url(sentinel)) as w:
            await asyncio.to_thread(primary.start)
            await w.settle(PATIENCE)


async def test_replica_that_a_sentinel_takes_for_the_primary_is_refused(primary):
    with contextlib.ExitStack() as stack:
        replica = stack.enter_context(Valkey(replica_of=primary))
        stale = stack.enter_context(Sentinel(replica, down_after=3_600_000))
        fresh = stack.enter_context(Sentinel(primary))
        client, other = clients(stack, primary, replica)
        wait(lambda: follows_primary(other))
        assert f"{addresses(replica)} is a replica" in await problem(url(stale))
        async with working(url(stale, fresh)) as w:
            w.store(b"v")
            await w.settle()
            assert client.get("users:1") == b"v"


# Passwords and TLS.


async def test_sentinels_and_primary_have_passwords_of_their_own(primary):
    primary.settings["requirepass"] = "of@primary"
    primary.restart()
    lines = ["requirepass of@sentinel", "sentinel auth-pass main of@primary"]
    with Sentinel(primary, lines=lines) as sentinel:
        place = f"redis+sentinel://:of%40primary@{addresses(sentinel)}/main"
        for query in ("", "?sentinel_password=wrong"):
            assert re.search("auth|password", await problem(f"{place}{query}"), re.IGNORECASE)
        for query in ("", "sentinel_username=default&"):
            async with working(f"{place}?{query}sentinel_password=of%40sentinel") as w:
                w.store(b"v")
                await w.settle()


async def test_tls_with_sentinels_and_primary(tmp_path, redis_tls_binary):
    tls = make_certificate(tmp_path)
    settings = {"tls-replication": "yes"}
    with (
        Valkey(binary=redis_tls_binary, tls=tls, settings=settings) as primary,
        Sentinel(primary, tls=tls, settings=settings) as sentinel,
        redis.Redis.from_url(primary.unix_url) as client,
    ):
        place = f"rediss+sentinel://{addresses(sentinel)}/main/0"
        assert "certificate" in (await problem(place)).lower()
        async with working(f"{place}?ssl_ca_certs={tls.ca}") as w:
            w.store(b"v")
            await w.settle()
            assert client.get("users:1") == b"v"
