"""What a URL must have, and what a connection does then. How each kind of URL connects: test_writer_deployments.py."""

import pytest
import redis

from cache.delivery import connections
from cache.delivery.connections import connector, pack
from tests.sentinel import Sentinel, url


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
def test_url_that_is_one_makes_unconnected_connections(url):
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
        ("rediss://h/0?ssl_cert_reqs=maybe", "cannot be: .*maybe"),
    ],
)
def test_url_that_is_none_is_refused_with_the_reason(url, words):
    with pytest.raises(ValueError, match=words):
        connector(url, 1)


async def test_url_cannot_change_what_the_writer_counts_on(redis_url):
    connection = connector(f"{redis_url}?decode_responses=true&protocol=3&socket_timeout=0.000001", 5)()
    await connection.connect()
    await connection.send_packed_command(pack((b"HGETALL", b"none")), check_health=False)
    assert await connection.read_response() == [], "lists of bytes, as RESP2 has it"
    await connection.disconnect()


def test_command_is_packed_as_redis_reads_it():
    assert pack((b"SET", b"a\r\n", 12, b"")) == b"*4\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$2\r\n12\r\n$0\r\n\r\n"


# Sentinels.


async def test_primary_that_does_not_permit_info_is_taken_as_it_is(server):
    with Sentinel(server) as sentinel, redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-info")
        connection = connector(url(sentinel).replace("//", "//u:p@", 1), 5)()
        await connection.connect()
        await connection.send_packed_command(pack((b"ECHO", b"v")), check_health=False)
        assert await connection.read_response() == b"v"
        await connection.disconnect()


async def test_connecting_twice_asks_the_sentinels_once(server, monkeypatch):
    with Sentinel(server) as sentinel:
        connection = connector(url(sentinel), 5)()
        await connection.connect()
        with monkeypatch.context() as patched:
            patched.setattr(connections._Sentinels, "ask", None)
            await connection.connect()
        await connection.disconnect()


def fail(*_):
    raise TypeError("a fault of our own")


async def test_fault_of_our_own_is_not_taken_for_a_sentinel_that_does_not_answer(server, monkeypatch):
    with Sentinel(server) as sentinel:
        connection = connector(url(sentinel), 5)()
        with monkeypatch.context() as patched:
            patched.setattr(connections._Sentinels, "ask", fail)
            with pytest.raises(TypeError):
                await connection.connect()
        await connection.connect()
        monkeypatch.setattr(connections._Sentinels, "ask", fail)
        monkeypatch.setattr(connection, "_next_look", 0.0)
        with pytest.raises(TypeError):
            await connection.send_packed_command(pack((b"PING",)), check_health=False)
        await connection.disconnect()
