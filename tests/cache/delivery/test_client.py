"""The writer's way of speaking to Redis: one exchange at a time, each with an end, and whose fault an error is."""

import asyncio
import contextlib
import time

import pytest
import redis
from redis.exceptions import ResponseError

from cache.delivery import scripts
from cache.delivery.client import RedisClient
from cache.delivery.faults import ScriptFaultError
from cache.delivery.scripts import Script


@contextlib.asynccontextmanager
async def connected(url, timeout=5.0):
    client = RedisClient(url, timeout)
    try:
        await client.connect()
        yield client
    finally:
        await client.close()


async def problems(url):
    found = await RedisClient(url, 5).problems()
    await asyncio.sleep(0)  # Its connection is closed in the next turn of the event loop.
    return found


async def test_connection_says_which_server_it_is(redis_url, redis_client):
    client = RedisClient(redis_url, 5)
    facts = await client.connect()
    assert facts["run_id"].encode() == client.run_id != b""
    assert facts["redis_version"] == redis_client.info("server")["redis_version"]
    await client.close()


async def test_server_need_not_say_which_it_is(server):
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-info")
        async with connected(f"redis://u:p@{server.host}:{server.port}") as client:
            assert client.run_id == b""
            assert await client.call(b"ECHO", b"v") == b"v"


async def test_command_without_a_connection_is_an_error(redis_url):
    client = RedisClient(redis_url, 5)
    with pytest.raises(ConnectionResetError):
        await client.call(b"PING")
    await client.close()
    await client.connect()
    await client.close()
    with pytest.raises(ConnectionResetError):
        await client.call(b"PING")


async def test_command_that_gets_no_answer_ends_in_time(server):
    async with connected(server.url, 0.2) as client:
        server.pause()
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await client.call(b"PING")
        assert time.monotonic() - begun < 2
        server.resume()


async def test_script_is_sent_whole_only_when_redis_does_not_have_it(redis_url, redis_client):
    script = Script(f"return '{time.monotonic_ns()}'")
    async with connected(redis_url) as client:
        assert redis_client.script_exists(script.digest) == [False]
        first = await client.run(script, [0])
        assert redis_client.script_exists(script.digest) == [True]
        assert await client.run(script, [0]) == first


async def test_fault_of_a_script_is_told_from_what_redis_refuses(redis_url, redis_client):
    async with connected(redis_url) as client:
        with pytest.raises(ScriptFaultError, match="line 1"):
            await client.run(Script("return nil + 1"), [0])
        redis_client.set("k", "a string")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await client.run(Script("return redis.call('HLEN', 'k')"), [0])
        assert await client.call(b"ECHO", b"v") == b"v", "the connection is still good"


async def test_closed_connection_sends_nothing_more(server):
    async with connected(server.url, 0.2) as client:
        server.pause()
        with pytest.raises(TimeoutError):
            await client.call(b"SET", b"k", b"v" * (64 << 20))
        transport = client._transport
        assert transport.get_write_buffer_size() > 0
        await client.close()
        assert transport.get_write_buffer_size() == 0
        server.resume()
    with redis.Redis.from_url(server.url) as admin:
        await asyncio.sleep(0.05)
        assert not admin.exists("k")


async def test_check_finds_nothing_wrong_and_leaves_nothing_behind(redis_url, redis_client):
    assert await problems(redis_url) == []
    assert redis_client.dbsize() == 0


async def test_check_names_what_a_script_may_not_do(server):
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-hset")
        [problem] = await problems(f"redis://u:p@{server.host}:{server.port}")
        assert problem.startswith("Redis refuses what Rowtap needs: ")


async def test_check_of_a_server_that_does_not_suit_runs_no_script(server, monkeypatch):
    monkeypatch.setattr("cache.delivery.client.problems", lambda facts: ["too old"])
    monkeypatch.setattr(scripts, "PROBE", None)
    assert await problems(server.url) == ["too old"]
