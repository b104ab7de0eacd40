"""Valkey for the tests, which is Redis by another name: one server a session, one empty logical database a test."""

import itertools

import pytest
import redis

from proxy.embedded import EmbeddedError, Valkey

_numbers = itertools.cycle(range(1, 16))


@pytest.fixture(scope="session")
def valkey(missing):
    """The session's Valkey, a `proxy.embedded.Valkey`. A test may kill or pause it; the next finds it running."""
    try:
        server = Valkey()
    except EmbeddedError as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
def redis_url(valkey):
    """The URL of an empty logical database, another one than the last test's, on a server that answers."""
    if valkey.running:
        valkey.resume()
    else:
        valkey.start()
    number = next(_numbers)
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        client.script_flush()
        client.config_resetstat()
    return f"{valkey.url}/{number}"


@pytest.fixture
def redis_client(redis_url):
    """A synchronous `redis.Redis` on `redis_url`; answers are bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
