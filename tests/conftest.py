"""Options, the report's header, and what a missing server means. The fixtures live in the plugins named here."""

import os
import platform

import pytest

from proxy.demo import servers as embedded

pytest_plugins = ["tests.fix_postgres", "tests.fix_redis", "tests.fix_proxy", "tests.fix_faults"]


def pytest_report_header() -> str:
    """The versions a failure should be read with."""
    servers = []
    try:
        servers.append(f"PostgreSQL {embedded.postgres_version()}")
        servers.append(f"Valkey {embedded.valkey_version()}")
    except embedded.EmbeddedError as error:
        servers.append(str(error))
    return ", ".join([*servers, f"{platform.python_implementation()} {platform.python_version()}"])


def pytest_sessionstart() -> None:
    """Keep the caller's libpq and Rowtap variables out of the tests and of every process they start."""
    for name in list(os.environ):
        if name.startswith(("PG", "ROWTAP_")):
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` gives tests of servers and processes, which a busy machine can starve, another chance and says so. A
    test that found something stale gets none (`rerun_except` in pyproject.toml): of those one failure in a hundred runs
    is the one to know of."""
    for item in items:
        if item.path.parts[-2] in {"protocol", "fuzz"}:
            item.add_marker(pytest.mark.flaky(reruns=0))


@pytest.fixture(scope="session")
def missing():
    """`missing(reason)`: what the machine lacks skips a test at home and fails it in CI, where nothing may lack."""

    def report(reason: str) -> None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (and CI=true, so this is a failure)")
        pytest.skip(reason)

    return report
