"""Fixtures of the tests of delivery."""

import pytest

from proxy.demo.servers import Valkey


@pytest.fixture
def server():
    """A server of the test's own, to be killed, paused and restarted."""
    with Valkey() as server:
        yield server
