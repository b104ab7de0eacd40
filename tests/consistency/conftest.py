"""Fixtures of the consistency tests, and how long they are to be.

CONSISTENCY_OPERATIONS=1000000 makes each round-running test that long. CONSISTENCY_SEED=N repeats the operations of a
run, whose seed every failure tells.
"""

import os
import random

import pytest

from tests.consistency.rounds import World


@pytest.fixture
def seed():
    """The first round's seed; the next ones count up."""
    return int(os.environ.get("CONSISTENCY_SEED") or random.getrandbits(32))


@pytest.fixture
def operations():
    """`operations(short)`: how many there shall be, so many in the short profile."""
    return lambda short: int(os.environ.get("CONSISTENCY_OPERATIONS") or short)


@pytest.fixture
def world(postgres, database, redis_url):
    """The tables, in `database`, and `redis_url` beside them."""
    return World(postgres, database, redis_url)


def pytest_collection_modifyitems(items):
    """A long run has no time limit."""
    if os.environ.get("CONSISTENCY_OPERATIONS"):
        for item in items:
            if "consistency" in item.path.parts:
                item.add_marker(pytest.mark.timeout(0))
