"""The admin endpoint of a running proxy, as monitoring tools read it."""

import re
import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.demo.servers import HOST, free_port

USERS = {"name": "users", "key": "id", "value": "name"}


@pytest.fixture
def table(connect):
    connection = connect()
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connection.execute("INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace')")


def test_status_and_metrics_count_fills_stores_and_connections(rowtap, table, database):
    proxy = rowtap(tables=[USERS])
    label = f"{database}.public.users"
    with proxy.connect() as connection:
        connection.execute("SELECT id, name FROM users")
        connection.execute("UPDATE users SET name = 'Ada K.' WHERE id = 1")
        for _ in range(50):  # latency is sampled
            connection.execute("SELECT 1")
        assert proxy.status()["sessions"] == 1
    proxy.settle()
    status = proxy.status()
    assert (status["pending_changes"], status["postgres"], status["redis"]) == (0, "up", "up")
    assert status["uptime"] > 0
    assert status["tables"][label]["fills"] + status["tables"][label]["stores"] >= 2
    assert status["tables"][label]["stores"] >= 1
    code, text = proxy.get("/metrics")
    assert code == 200
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["rowtap_changes_total", ("kind", "store"), ("table", label)] == status["tables"][label]["stores"]
    assert samples["rowtap_connections_accepted_total",] >= 1
    assert samples["rowtap_received_bytes_total", ("sender", "backend")] > 0
    assert samples["rowtap_redis_lag_seconds_count",] >= 2
    assert samples["rowtap_added_latency_seconds_count",] > 0
    assert status["internal_errors"] == 0
    assert {value for place, value in samples.items() if place[0] == "rowtap_internal_errors_total"} == {0}


def test_readyz_answers_503_while_redis_is_unreachable(rowtap):
    without_redis = rowtap(config={"redis": {"url": f"redis://{HOST}:{free_port()}"}})
    code, text = without_redis.get("/readyz")
    assert (code, text) == (503, "Redis cannot be reached\n")
    assert without_redis.get("/healthz")[0] == 200
    proxy = rowtap()
    deadline = time.monotonic() + 5
    while proxy.get("/readyz")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_readyz_answers_503_while_postgres_is_unreachable(rowtap):
    code, text = rowtap(config={"postgres": {"port": free_port()}}).get("/readyz")
    assert code == 503
    assert "PostgreSQL" in text or "5432" in text or "refused" in text


def test_port_in_use_is_reported_in_one_line(rowtap, tmp_path):
    proxy = rowtap()
    for section, key in (("proxy", "PROXY__LISTEN"), ("admin", "ADMIN__LISTEN")):
        taken = proxy.config[section]["listen"]
        other = {"PROXY__LISTEN": f"{HOST}:{free_port()}", "ADMIN__LISTEN": f"{HOST}:{free_port()}"} | {key: taken}
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "serve", "--config", proxy.config_path],
            env={f"ROWTAP_{name}": value for name, value in other.items()},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if re.search(r"\[error", line)]
        assert len(errors) == 1
        assert taken in errors[0]
        assert "Traceback" not in done.stderr


def test_health_check_of_the_image_succeeds_only_on_the_right_port(rowtap):
    from tests.test_packaging import argument

    proxy = rowtap()
    script = argument("HEALTHCHECK").partition('"-c", "')[2].rpartition('"]')[0].replace("9432", str(proxy.admin_port))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    unused_port = script.replace(str(proxy.admin_port), str(free_port()))
    assert subprocess.run([sys.executable, "-c", unused_port], capture_output=True, check=False).returncode == 1
