"""What a Redis says of itself, and what of that is against working with it."""

import pytest

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
def test_server_that_does_not_suit_is_told_why(info, word):
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
def test_server_that_suits_has_no_problems(versions, policy):
    assert problems(versions | {"role": "master", "maxmemory": "1", "maxmemory_policy": policy}) == []
    assert problems(versions | {"maxmemory": "0", "maxmemory_policy": "allkeys-random"}) == [], "it never evicts"


def test_reply_of_info_is_read_line_by_line():
    assert facts_of(b"# Server\r\nredis_version:7.2.4\r\nexecutable:/a:b\r\n\r\n") == {
        "redis_version": "7.2.4",
        "executable": "/a:b",
    }
