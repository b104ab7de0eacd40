"""Fixtures of the consistency tests, and how many operations they run.

CONSISTENCY_OPERATIONS=1000000 sets the number for each test that runs rounds. CONSISTENCY_SEED=N repeats the operations
of a run; every failure prints its seed.
"""

import os
import random

import pytest

from tests.consistency.rounds import World


@pytest.fixture
def seed():
    """The seed of the first round; each further round adds one."""
    return int(os.environ.get("CONSISTENCY_SEED") or random.getrandbits(32))


@pytest.fixture
def operations():
    """`operations(short)`: how many operations to run; `short` unless CONSISTENCY_OPERATIONS is set."""
    return lambda short: int(os.environ.get("CONSISTENCY_OPERATIONS") or short)


@pytest.fixture
def world(postgres, database, redis_url):
    """The tables in `database`, and `redis_url`, which mirrors them."""
    return World(postgres, database, redis_url)


def pytest_collection_modifyitems(items):
    """A long run has no time limit."""
    if os.environ.get("CONSISTENCY_OPERATIONS"):
        for item in items:
            if "consistency" in item.path.parts:
                item.add_marker(pytest.mark.timeout(0))
