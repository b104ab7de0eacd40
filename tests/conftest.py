"""Options, the report's header, and what a test does when a server is missing. The fixtures are in the
plugins below."""

import os
import platform

import pytest

from proxy.demo.servers import EmbeddedError, postgres_version, valkey_version

pytest_plugins = [
    "tests.timing",
    "tests.measuring",
    "tests.fix_postgres",
    "tests.fix_redis",
    "tests.fix_proxy",
    "tests.fix_faults",
]


def pytest_report_header() -> str:
    """The versions which someone who reads a failure needs to know."""
    servers = []
    try:
        servers.append(f"PostgreSQL {postgres_version()}")
        servers.append(f"Valkey {valkey_version()}")
    except EmbeddedError as error:
        servers.append(str(error))
    return ", ".join([*servers, f"{platform.python_implementation()} {platform.python_version()}"])


def pytest_sessionstart() -> None:
    """Keep the caller's libpq and Rowtap variables out of the tests and of every process they start."""
    for name in list(os.environ):
        if name.startswith(("PG", "ROWTAP_")):
            del os.environ[name]


@pytest.fixture(scope="session")
def missing():
    """`missing(reason)`: skips the test when the machine lacks something; fails it in CI, where nothing may
    be missing."""

    def report(reason: str) -> None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (and CI=true, so this is a failure)")
        pytest.skip(reason)

    return report
