"""No key is stale after everything that can fail has failed, in the middle of a workload."""

import asyncio
import contextlib
import os
import signal
import time
from random import Random

import psycopg
import pytest
import redis

from proxy.demo.server_process import children
from proxy.demo.servers import Valkey
from tests.consistency import tables
from tests.consistency.rounds import ready
from tests.consistency.sessions import AsyncpgSession, Journal, Prepared, PsycopgSession
from tests.sentinel import is_primary, start_sentinel, url, wait

SHORT = 500


@pytest.fixture
def happen(rowtap, world, seed, operations):
    """`happen(during)`: rounds in front of one proxy, each with `during(round)` in its middle."""

    async def run(during, *, config=None, hosts=None):
        proxies = hosts or [rowtap(tables.RULES, config)]
        return await world.rounds(proxies, seed=seed, operations=operations(SHORT), during=during)

    return run


@pytest.fixture
def own_valkey():
    """A Valkey that may be restored, filled up or replaced: nobody else's."""
    with Valkey() as server:
        yield server


# Redis.


async def test_redis_is_killed_and_comes_back_empty(happen, valkey):
    async def during(_round):
        valkey.kill()
        await asyncio.sleep(0.2)
        await asyncio.to_thread(valkey.start)

    await happen(during)


async def test_redis_comes_back_with_an_old_snapshot(happen, world, own_valkey):
    world.redis_url = own_valkey.url

    async def during(this):
        with redis.Redis.from_url(own_valkey.url) as client:
            client.save()
        await this.passed(0.6)
        own_valkey.kill()
        await asyncio.to_thread(own_valkey.start)
        with redis.Redis.from_url(own_valkey.url) as client:
            assert client.dbsize() > 1, "there was nothing in the snapshot"

    await happen(during, config={"redis": {"url": own_valkey.url}})


async def test_redis_stands_still(happen, valkey):
    async def during(this):
        valkey.pause()
        before = this.journal.operations
        try:
            # Nobody waits for Redis: a few hundred operations are done meanwhile.
            async with asyncio.timeout(20):
                await this.reached(before + 0.4 * SHORT)
        finally:
            valkey.resume()

    await happen(during)


async def test_redis_is_flushed(happen, redis_client):
    async def during(this):
        redis_client.flushall()
        await this.passed(0.6)
        redis_client.flushdb()

    await happen(during)


async def test_redis_is_full(happen, world, own_valkey):
    world.redis_url = own_valkey.url

    async def during(this):
        with redis.Redis.from_url(own_valkey.url) as client:
            client.config_set("maxmemory", "1")  # Some are below a megabyte when nearly empty.
            with pytest.raises(redis.OutOfMemoryError):
                client.set("more", "x")
            await this.passed(0.6)
            client.config_set("maxmemory", "0")

    await happen(during, config={"redis": {"url": own_valkey.url}})


async def test_redis_fails_over_to_a_replica(happen, world, own_valkey, faulty):
    """The replica lags behind when it takes over, and the old primary becomes a read-only replica under us."""
    with Valkey(replica_of=own_valkey) as replica:
        link = faulty(own_valkey.host, own_valkey.port)
        world.redis_url = f"redis://{link.host}:{link.port}"

        async def during(this):
            with redis.Redis.from_url(own_valkey.url) as old, redis.Redis.from_url(replica.url) as new:
                new.replicaof("NO", "ONE")
                await this.passed(0.5)
                old.replicaof(replica.host, replica.port)
                await this.passed(0.6)
            link.target = (replica.host, replica.port)
            link.drop()

        await happen(during, config={"redis": {"url": world.redis_url}})


async def test_redis_dies_and_a_sentinel_promotes_its_replica(happen, world, own_valkey):
    with Valkey(replica_of=own_valkey) as replica, contextlib.closing(start_sentinel(own_valkey, replica)) as sentinel:
        world.redis_url = own_valkey.url

        async def during(_round):
            own_valkey.kill()
            with redis.Redis.from_url(replica.url) as client:
                await asyncio.to_thread(wait, lambda: is_primary(client))
            world.redis_url = replica.url

        await happen(during, config={"redis": {"url": url(sentinel)}})


async def test_the_link_to_redis_is_reset_again_and_again(happen, world, valkey, faulty, seed):
    link = faulty(valkey.host, valkey.port)
    random = Random(seed)

    async def during(_round):
        for _ in range(8):
            link.to_client.delay = random.choice((0.0, 0.01))
            await asyncio.sleep(random.uniform(0.01, 0.1))
            link.reset()
        link.to_client.delay = 0.0

    database = world.redis_url.rpartition("/")[2]
    await happen(during, config={"redis": {"url": f"redis://{link.host}:{link.port}/{database}"}})


async def test_more_changes_wait_than_may(happen, rowtap, world, valkey, faulty):
    link = faulty(valkey.host, valkey.port)
    database = world.redis_url.rpartition("/")[2]
    settings = {"redis": {"url": f"redis://{link.host}:{link.port}/{database}", "max_backlog": 3}}
    proxy = rowtap(tables.RULES, settings)

    async def during(this):
        link.to_server.stall()
        await this.passed(0.6)
        link.to_server.go()

    await happen(during, hosts=[proxy])
    assert "rowtap_backlog_collapses_total 0" not in proxy.get("/metrics")[1]


# Rowtap.


async def test_a_worker_is_killed_between_commit_and_write(happen, rowtap):
    # A long interval: there is always something committed that is not in Redis yet.
    proxy = rowtap(tables.RULES, {"proxy": {"workers": 2}, "redis": {"flush_interval": "30ms"}})

    async def during(this):
        victim = min(children(proxy.pid))
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(ready, proxy)

    await happen(during, hosts=[proxy])


async def test_the_whole_proxy_is_killed_and_started_again(happen, rowtap):
    proxy = rowtap(tables.RULES, {"redis": {"flush_interval": "30ms"}})

    async def during(_round):
        proxy.kill()
        await asyncio.to_thread(proxy.start)

    await happen(during, hosts=[proxy])


async def test_one_of_two_hosts_is_killed_for_good(happen, rowtap):
    """Its last writes are nobody's: whoever shares the Redis flushes what it may have left behind."""
    settings = {"redis": {"flush_interval": "30ms"}}
    hosts = [rowtap(tables.RULES, settings), rowtap(tables.RULES, settings)]

    async def during(this):
        hosts[1].kill()
        for number, session in enumerate(this.sessions):
            if number % 2:
                session.go_to(hosts[0].url())
        await asyncio.sleep(0.2)
        await asyncio.to_thread(hosts[1].start)

    await happen(during, hosts=hosts)


# PostgreSQL and clients.


async def test_postgres_is_killed_mid_commit(happen, postgres):
    async def during(_round):
        postgres.kill()
        await asyncio.to_thread(postgres.start)

    await happen(during)


async def test_backends_are_terminated(happen, postgres, database):
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3"
    )

    async def during(_round):
        with psycopg.connect(postgres.dsn(database), autocommit=True) as connection:
            for _ in range(6):
                connection.execute(query)
                await asyncio.sleep(0.03)

    await happen(during)


async def test_links_to_clients_and_postgres_are_reset(happen, rowtap, postgres, faulty):
    link = faulty(postgres.host, postgres.port)
    proxy = rowtap(tables.RULES, {"postgres": {"port": link.port}})

    async def during(_round):
        for _ in range(4):
            await asyncio.sleep(0.05)
            link.reset()

    await happen(during, hosts=[proxy])


@pytest.mark.parametrize("kind", [PsycopgSession, AsyncpgSession])
async def test_clients_are_killed_mid_commit(happen, rowtap, seed, kind):
    proxy = rowtap(tables.RULES)

    async def during(_round):
        random = Random(seed)
        for number in range(15):
            session = kind(f"x{number}", proxy.url(), Journal(), Prepared())
            await session.connect()
            key = random.randint(1, tables.HOT)
            statement = f"UPDATE users SET name = 'gone {number}', n = 0 WHERE id = {key}"
            if random.random() < 0.5:
                await session.abandon(statement)
            else:
                with contextlib.suppress(*kind.FAILED):
                    await session.execute("BEGIN")
                    await session.execute(statement)
                await session.abandon("COMMIT")

    await happen(during, hosts=[proxy])


def test_a_link_that_was_reset_while_nothing_was_sent(rowtap, world, valkey, faulty):
    link = faulty(valkey.host, valkey.port)
    database = world.redis_url.rpartition("/")[2]
    proxy = rowtap(tables.RULES, {"redis": {"url": f"redis://{link.host}:{link.port}/{database}"}})
    with proxy.connect() as connection:
        connection.execute("TABLE users")
        proxy.settle()
        link.reset()
        time.sleep(0.1)
        connection.execute("UPDATE users SET name = 'new' WHERE id = 1")
        proxy.settle()
    assert world.held().get(b"users:1") in {None, b"new"}, "stale"
