"""What a server says of itself, and what a URL must have. How each kind of URL connects: test_writer_deployments.py."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from cache.connections import connector, facts_of, pack, problems, undone


@pytest.mark.parametrize(
    ("info", "word"),
    [
        ({"redis_version": "6.0.9"}, "too old"),
        ({"redis_version": "7.2.4", "redis_mode": "cluster"}, "cluster"),
        ({"redis_version": "7.2.4", "role": "slave"}, "replica"),
        ({"redis_version": "7.2.4", "maxmemory": "1", "maxmemory_policy": "allkeys-random"}, "allkeys-random"),
    ],
)
def test_problems(info, word):
    assert any(word in problem for problem in problems(info))


def test_no_problems():
    good = {"redis_version": "6.2.0", "role": "master", "maxmemory": "1", "maxmemory_policy": "allkeys-lru"}
    assert problems(good) == []


def test_urls():
    assert connector("redis+sentinel://u:p@a:1,b:2/main/3", 1)().is_connected is False
    with pytest.raises(ValueError, match="service"):
        connector("redis+sentinel://a:1", 1)


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
    assert undone(error) is surely


def test_packing():
    assert pack((b"SET", b"a\r\n", 12, b"")) == b"*4\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$2\r\n12\r\n$0\r\n\r\n"
