"""No key is stale after Redis, the proxy, PostgreSQL, clients or connections failed in the middle of a workload."""

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
from tests.consistency.rounds import wait_until_ready
from tests.consistency.sessions import AsyncpgSession, Journal, PreparedTransactions, PsycopgSession
from tests.sentinel import is_primary, start_sentinel, url, wait

pytestmark = pytest.mark.timing("what was killed must be back, and its clients too, within 30 s of full load")

SHORT = 500


@pytest.fixture
def run_disturbed(rowtap, world, seed, operations):
    """`run_disturbed(disturb)`: rounds in front of one proxy, with `disturb(round)` in the middle of each."""

    async def run(disturb, *, config=None, hosts=None):
        proxies = hosts or [rowtap(tables.RULES, config)]
        return await world.rounds(proxies, seed=seed, operations=operations(SHORT), disturb=disturb)

    return run


@pytest.fixture
def own_valkey():
    """A Valkey for one test, which may restore, fill or replace it."""
    with Valkey() as server:
        yield server


# Redis.


async def test_no_key_is_stale_after_redis_restarts_empty(run_disturbed, valkey):
    async def disturb(_round):
        valkey.kill()
        await asyncio.sleep(0.2)
        await asyncio.to_thread(valkey.start)

    await run_disturbed(disturb)


async def test_no_key_is_stale_after_redis_restarts_with_an_old_snapshot(run_disturbed, world, own_valkey):
    world.redis_url = own_valkey.url

    async def disturb(current):
        with redis.Redis.from_url(own_valkey.url) as client:
            client.save()
        await current.wait_for_share(0.6)
        own_valkey.kill()
        await asyncio.to_thread(own_valkey.start)
        with redis.Redis.from_url(own_valkey.url) as client:
            assert client.dbsize() > 1, "there was nothing in the snapshot"

    await run_disturbed(disturb, config={"redis": {"url": own_valkey.url}})


async def test_sessions_go_on_while_redis_is_paused(run_disturbed, valkey):
    async def disturb(current):
        valkey.pause()
        before = current.journal.operations
        try:
            # No session waits for Redis: a few hundred operations are done meanwhile.
            async with asyncio.timeout(20):
                await current.wait_for_operations(before + 0.4 * SHORT)
        finally:
            valkey.resume()

    await run_disturbed(disturb)


async def test_no_key_is_stale_after_redis_is_flushed(run_disturbed, redis_client):
    async def disturb(current):
        redis_client.flushall()
        await current.wait_for_share(0.6)
        redis_client.flushdb()

    await run_disturbed(disturb)


async def test_no_key_is_stale_after_redis_runs_out_of_memory(run_disturbed, world, own_valkey):
    world.redis_url = own_valkey.url

    async def disturb(current):
        with redis.Redis.from_url(own_valkey.url) as client:
            client.config_set("maxmemory", "1")  # Some versions use less than a megabyte when nearly empty.
            with pytest.raises(redis.OutOfMemoryError):
                client.set("more", "x")
            await current.wait_for_share(0.6)
            client.config_set("maxmemory", "0")

    await run_disturbed(disturb, config={"redis": {"url": own_valkey.url}})


async def test_no_key_is_stale_after_a_failover_to_a_replica(run_disturbed, world, own_valkey, faulty):
    """The replica lags behind when it becomes the primary, and the old primary becomes a read-only replica."""
    with Valkey(replica_of=own_valkey) as replica:
        link = faulty(own_valkey.host, own_valkey.port)
        world.redis_url = f"redis://{link.host}:{link.port}"

        async def disturb(current):
            with redis.Redis.from_url(own_valkey.url) as old, redis.Redis.from_url(replica.url) as new:
                new.replicaof("NO", "ONE")
                await current.wait_for_share(0.5)
                old.replicaof(replica.host, replica.port)
                await current.wait_for_share(0.6)
            link.target = (replica.host, replica.port)
            link.drop()

        await run_disturbed(disturb, config={"redis": {"url": world.redis_url}})


async def test_no_key_is_stale_after_a_sentinel_promotes_the_replica(run_disturbed, world, own_valkey):
    with Valkey(replica_of=own_valkey) as replica, contextlib.closing(start_sentinel(own_valkey, replica)) as sentinel:
        world.redis_url = own_valkey.url

        async def disturb(_round):
            own_valkey.kill()
            with redis.Redis.from_url(replica.url) as client:
                await asyncio.to_thread(wait, lambda: is_primary(client))
            world.redis_url = replica.url

        await run_disturbed(disturb, config={"redis": {"url": url(sentinel)}})


async def test_no_key_is_stale_after_repeated_resets_of_the_connection_to_redis(
    run_disturbed, world, valkey, faulty, seed
):
    link = faulty(valkey.host, valkey.port)
    random = Random(seed)

    async def disturb(_round):
        for _ in range(8):
            link.to_client.delay = random.choice((0.0, 0.01))
            await asyncio.sleep(random.uniform(0.01, 0.1))
            link.reset()
        link.to_client.delay = 0.0

    database = world.redis_url.rpartition("/")[2]
    await run_disturbed(disturb, config={"redis": {"url": f"redis://{link.host}:{link.port}/{database}"}})


async def test_no_key_is_stale_after_the_backlog_collapsed(run_disturbed, rowtap, world, valkey, faulty):
    link = faulty(valkey.host, valkey.port)
    database = world.redis_url.rpartition("/")[2]
    settings = {"redis": {"url": f"redis://{link.host}:{link.port}/{database}", "max_backlog": 3}}
    proxy = rowtap(tables.RULES, settings)

    async def disturb(current):
        link.to_server.stall()
        await current.wait_for_share(0.6)
        link.to_server.go()

    await run_disturbed(disturb, hosts=[proxy])
    assert "rowtap_backlog_collapses_total 0" not in proxy.get("/metrics")[1]


# Rowtap.


async def test_no_key_is_stale_after_a_worker_is_killed_with_changes_pending(run_disturbed, rowtap):
    # With a long interval some committed change is always not in Redis yet.
    proxy = rowtap(tables.RULES, {"proxy": {"workers": 2}, "redis": {"flush_interval": "30ms"}})

    async def disturb(current):
        victim = min(children(proxy.pid))
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(wait_until_ready, proxy)

    await run_disturbed(disturb, hosts=[proxy])


async def test_no_key_is_stale_after_the_proxy_is_killed_and_restarted(run_disturbed, rowtap):
    proxy = rowtap(tables.RULES, {"redis": {"flush_interval": "30ms"}})

    async def disturb(_round):
        proxy.kill()
        await asyncio.to_thread(proxy.start)

    await run_disturbed(disturb, hosts=[proxy])


async def test_no_key_is_stale_after_one_of_two_hosts_is_killed(run_disturbed, rowtap):
    """The killed host's last writes never reach Redis; the other host flushes the keys they may concern."""
    settings = {"redis": {"flush_interval": "30ms"}}
    hosts = [rowtap(tables.RULES, settings), rowtap(tables.RULES, settings)]

    async def disturb(current):
        hosts[1].kill()
        for number, session in enumerate(current.sessions):
            if number % 2:
                session.connect_to(hosts[0].url())
        await asyncio.sleep(0.2)
        await asyncio.to_thread(hosts[1].start)

    await run_disturbed(disturb, hosts=hosts)


# PostgreSQL and clients.


async def test_no_key_is_stale_after_postgres_is_killed(run_disturbed, postgres):
    async def disturb(_round):
        postgres.kill()
        await asyncio.to_thread(postgres.start)

    await run_disturbed(disturb)


async def test_no_key_is_stale_after_backends_are_terminated(run_disturbed, postgres, database):
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3"
    )

    async def disturb(_round):
        with psycopg.connect(postgres.dsn(database), autocommit=True) as connection:
            for _ in range(6):
                connection.execute(query)
                await asyncio.sleep(0.03)

    await run_disturbed(disturb)


async def test_no_key_is_stale_after_connections_to_postgres_are_reset(run_disturbed, rowtap, postgres, faulty):
    link = faulty(postgres.host, postgres.port)
    proxy = rowtap(tables.RULES, {"postgres": {"port": link.port}})

    async def disturb(_round):
        for _ in range(4):
            await asyncio.sleep(0.05)
            link.reset()

    await run_disturbed(disturb, hosts=[proxy])


@pytest.mark.parametrize("kind", [PsycopgSession, AsyncpgSession])
async def test_no_key_is_stale_after_clients_disconnect_before_the_answer(run_disturbed, rowtap, seed, kind):
    proxy = rowtap(tables.RULES)

    async def disturb(_round):
        random = Random(seed)
        for number in range(15):
            session = kind(f"x{number}", proxy.url(), Journal(), PreparedTransactions())
            await session.connect()
            key = random.randint(1, tables.HOT)
            statement = f"UPDATE users SET name = 'gone {number}', n = 0 WHERE id = {key}"
            if random.random() < 0.5:
                await session.send_and_disconnect(statement)
            else:
                with contextlib.suppress(*kind.STATEMENT_FAILED):
                    await session.execute("BEGIN")
                    await session.execute(statement)
                await session.send_and_disconnect("COMMIT")

    await run_disturbed(disturb, hosts=[proxy])


def test_no_key_is_stale_after_an_idle_connection_to_redis_is_reset(rowtap, world, valkey, faulty):
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
