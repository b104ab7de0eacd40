"""Which processes are measured when the suite runs under coverage.

pytest's own processes are, and `python -m proxy` where the test that starts it asks for that:

    pytestmark = pytest.mark.measured

Most of what a proxy runs is reached in pytest's own processes as well, by `Server` in a thread (tests/proxy), and a
measured proxy takes half as much time again. Mark what reaches lines or branches that `make coverage` misses without;
`MEASURE=all make coverage` measures every proxy and so tells whether there are any.
"""

import os

import coverage
import pytest

VARIABLE = "COVERAGE_PROCESS_CONFIG"
"""With it in the environment a process of Python measures itself."""
CONFIG = os.environ.get(VARIABLE)
ALL = os.environ.get("MEASURE") == "all"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Have the processes measured that this test will start, or not; before its fixtures are made."""
    if CONFIG is not None and (ALL or item.get_closest_marker("measured")):
        os.environ[VARIABLE] = CONFIG
    else:
        os.environ.pop(VARIABLE, None)


def pytest_sessionfinish():
    """Save what this process has measured: pytest-xdist kills one that does not end in time."""
    if (measuring := coverage.Coverage.current()) is not None:
        measuring.save()
