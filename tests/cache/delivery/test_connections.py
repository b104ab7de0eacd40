"""What a server says of itself, and what a URL must have. How each kind of URL connects: test_writer_deployments.py."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from cache.delivery.connections import connector, pack
from cache.delivery.faults import is_undone
from cache.delivery.server_info import facts_of, problems


@pytest.mark.parametrize(
    ("info", "word"),
    [
        ({"redis_version": "6.0.9"}, "Redis 6.0.9 is too old: 6.2 or later is needed"),
        ({"redis_version": "5"}, "Redis 5 is too old"),
        ({}, "does not say which version"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.9"}, "Valkey 7.1.9 is too old: 7.2 or later is needed"),
        ({"redis_version": "7.2.4", "redis_mode": "cluster"}, "cluster"),
        ({"redis_version": "7.2.4", "role": "slave"}, "replica"),
        ({"redis_version": "7.2.4", "maxmemory": "1", "maxmemory_policy": "allkeys-random"}, "allkeys-random"),
        ({"redis_version": "7.2.4", "maxmemory": "1", "maxmemory_policy": "noeviction"}, "noeviction"),
        ({"redis_version": "7.2.4", "maxmemory": "1", "maxmemory_policy": "volatile-lru"}, "volatile-lru"),
    ],
)
def test_problems(info, word):
    assert any(word in problem for problem in problems(info))


@pytest.mark.parametrize(
    "versions",
    [
        {"redis_version": "6.2.0"},
        {"redis_version": "8.10.1"},
        {"redis_version": "7.2.4", "valkey_version": "7.2.5-rc1"},
        {"redis_version": "7.2.4", "valkey_version": "10.0.0"},
    ],
    ids=str,
)
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu"])
def test_no_problems(versions, policy):
    assert problems(versions | {"role": "master", "maxmemory": "1", "maxmemory_policy": policy}) == []
    assert problems(versions | {"maxmemory": "0", "maxmemory_policy": "allkeys-random"}) == [], "it never evicts"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p@h:1/2",
        "rediss://h?ssl_cert_reqs=required",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://u:p@a:1,b:2/main/3",
        "redis+sentinel://[::1]:1,[::2],c/main?sentinel_username=u&sentinel_password=p",
        "rediss+sentinel://a/main?ssl_check_hostname=false",
    ],
)
def test_urls(url):
    assert connector(url, 1)().is_connected is False


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://a:1", "service"),
        ("redis+sentinel:///main", "hosts"),
        ("redis+sentinel://a,,b/main", "names no sentinel"),
        ("redis+sentinel://a:geheim/main", "geheim"),
        ("redis+sentinel://a/main/geheim", "number of a database"),
        ("unix+sentinel://a/main", "is reached by"),
        ("redis+cluster://a/main", "is reached by"),
        ("redis://h/0?colour=red", "not known.*colour"),
        ("redis+sentinel://a/main?ssl_ca_certs=/dev/null/x", "ssl_ca_certs"),
        ("redis+sentinel://a/main?ssl_cert_reqs=required", "not known.*ssl_cert_reqs"),
        ("redis://h/0?ssl_cert_reqs=required", "not known.*ssl_cert_reqs"),
        ("rediss://h/0?ssl_ca_certs=/nonexistent/ca.crt", "ssl_ca_certs: there is no file /nonexistent/ca.crt"),
        ("redis://h/0?socket_timeout=x", "socket_timeout"),
    ],
)
def test_urls_that_are_none(url, words):
    with pytest.raises(ValueError, match=words):
        connector(url, 1)


async def test_what_is_counted_on_is_not_the_url_s_to_say(redis_url):
    connection = connector(f"{redis_url}?decode_responses=true&protocol=3&socket_timeout=0.000001", 5)()
    await connection.connect()
    await connection.send_packed_command(pack((b"HGETALL", b"none")), check_health=False)
    assert await connection.read_response() == [], "lists of bytes, as RESP2 has it"
    await connection.disconnect()


def test_facts():
    assert facts_of(b"# Server\r\nredis_version:7.2.4\r\nexecutable:/a:b\r\n\r\n") == {
        "redis_version": "7.2.4",
        "executable": "/a:b",
    }


@pytest.mark.parametrize(
    ("error", "surely"),
    [
        (ResponseError("BUSY Redis is busy running a script"), True),
        (ReadOnlyError("You can't write against a read only replica."), True),
        (ResponseError("WRONGTYPE Operation against a key"), False),
        (RedisConnectionError("gone"), False),
        (TimeoutError(), False),
    ],
    ids=str,
)
def test_what_was_surely_not_done(error, surely):
    assert is_undone(error) is surely


def test_packing():
    assert pack((b"SET", b"a\r\n", 12, b"")) == b"*4\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$2\r\n12\r\n$0\r\n\r\n"
