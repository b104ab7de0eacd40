"""``rowtap serve`` as a process: signals, other rules, several workers, and what the admin endpoint says meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from proxy.demo.servers import HOST, free_port
from proxy.process.supervisor import cores
from tests.fix_proxy import ROOT, merged, toml

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
MAILS = USERS | {"value": "mail", "redis_key": "mails:{id}"}
TWO = {"proxy": {"workers": 2}}


@pytest.fixture
def users(connect):
    connection = connect()
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text, mail text)")
    connection.execute("INSERT INTO users SELECT n, 'name ' || n, 'mail ' || n FROM generate_series(1, 99) n")


def until(condition, seconds=15.0):
    """Wait until `condition()` is true; returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def refuses(proxy):
    try:
        proxy.connect(connect_timeout=2).close()
    except psycopg.OperationalError:
        return True
    return False


def read(proxy, *numbers, connection=None):
    connection = connection or proxy.connect()
    for number in numbers:
        connection.execute("SELECT id, name, mail FROM users WHERE id = %s", (number,))
    return connection


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - a file of the kernel's, not ours
        return [int(word) for word in file.read().split()]


@pytest.mark.parametrize("config", [{}, TWO], ids=["one", "two"])
def test_sigterm_lets_sessions_end_and_drains_the_backlog(rowtap, users, redis_client, config):
    proxy = rowtap([USERS], config | {"proxy": config.get("proxy", {}) | {"shutdown_timeout": "20s"}})
    connection = read(proxy, 1)
    connection.autocommit = False
    connection.execute("UPDATE users SET name = 'last' WHERE id = 1")
    proxy.signal(signal.SIGTERM)
    until(lambda: refuses(proxy))
    status, reasons = proxy.get("/readyz")
    assert status == 503
    assert "draining" in reasons
    assert proxy.get("/healthz")[0] == 200
    assert proxy.process.poll() is None
    connection.commit()
    connection.close()
    assert proxy.wait() == 0
    assert redis_client.get("users:1") == b"last"
    assert [field for field in redis_client.hkeys("rowtap:state") if field.startswith(b"w:")] == []


@pytest.mark.parametrize("config", [{}, TWO], ids=["one", "two"])
def test_second_signal_ends_sessions_at_once(rowtap, users, config):
    proxy = rowtap([USERS], config | {"proxy": config.get("proxy", {}) | {"shutdown_timeout": "1h"}})
    connection = read(proxy, 1)
    proxy.signal(signal.SIGINT)
    until(lambda: refuses(proxy))
    assert proxy.process.poll() is None
    proxy.signal(signal.SIGTERM)
    assert proxy.wait(10) == 0
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


def test_sessions_open_at_the_shutdown_timeout_get_an_error(rowtap, users):
    proxy = rowtap([USERS], {"proxy": {"shutdown_timeout": "100ms"}})
    connection = read(proxy, 1)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        connection.execute("SELECT 1")


@pytest.mark.parametrize("config", [{}, TWO], ids=["one", "two"])
def test_sighup_takes_over_other_tables_and_ends_no_session(rowtap, users, redis_client, config):
    proxy = rowtap([USERS], config)
    connections = [read(proxy, number) for number in range(1, 7)]
    proxy.settle()
    assert redis_client.get("users:6") == b"name 6"
    proxy.write_config(table=[USERS | {"redis_key": "people:{id}"}, MAILS])
    proxy.signal(signal.SIGHUP)
    workers = config.get("proxy", {}).get("workers", 1)
    until(lambda: proxy.log_text().count("worker takes over the new configuration") == workers)
    for number, connection in enumerate(connections, 11):
        # The first reads may go by while the catalog is asked for again.
        until(lambda n=number, c=connection: read(proxy, n, connection=c) and redis_client.get(f"mails:{n}"))
        assert redis_client.get(f"mails:{number}") == f"mail {number}".encode()
        assert redis_client.get(f"people:{number}") == f"name {number}".encode()
    proxy.settle()
    assert redis_client.keys("users:*") == [], "keys of a table that is captured no longer"
    assert proxy.status()["sessions"] == 6


def test_sighup_with_a_refused_file_changes_nothing(rowtap, users, redis_client):
    proxy = rowtap([USERS], TWO)
    connection = read(proxy, 1)
    proxy.config_path.write_text(toml(proxy.config) + "surprise = 1\n")
    proxy.signal(signal.SIGHUP)
    until(lambda: proxy.log_text().count("worker refuses the new configuration") == 2)
    assert "surprise" in proxy.log_text()
    read(proxy, 2, connection=connection)
    proxy.settle()
    assert redis_client.get("users:2") == b"name 2"


def test_sighup_logs_which_changed_settings_need_a_restart(rowtap):
    proxy = rowtap([USERS])
    proxy.write_config(redis={"url": f"redis://:geheim@{HOST}:1/0"}, log={"format": "json"})
    proxy.signal(signal.SIGHUP)
    until(lambda: "worker takes over the new configuration" in proxy.log_text())
    entries = [json.loads(line) for line in proxy.log_text().splitlines() if line.startswith("{")]
    (warning,) = [entry for entry in entries if entry["level"] == "warning"]
    assert warning["keys"] == "redis.url"
    assert "geheim" not in proxy.log_text()


def test_several_workers_answer_with_the_sum_of_their_counts(rowtap, users, redis_client):
    proxy = rowtap([USERS], TWO)
    until(lambda: proxy.get("/readyz")[0] == 200)
    connections = [read(proxy, *range(number, 99, 20)) for number in range(1, 21)]
    proxy.settle()
    assert len(redis_client.keys("users:*")) == 98
    found = proxy.status()
    assert (found["workers"], found["sessions"], found["pending_changes"]) == (2, 20, 0)
    assert (found["postgres"], found["redis"]) == ("up", "up")
    (counted,) = found["tables"].values()
    assert counted["fills"] == 98
    _, metrics = proxy.get("/metrics")
    assert f'rowtap_changes_total{{kind="fill",table="{proxy.database}.public.users"}} 98.0' in metrics or (
        f'rowtap_changes_total{{table="{proxy.database}.public.users",kind="fill"}} 98.0' in metrics
    )
    assert 'process_open_fds{worker="1"}' in metrics
    for connection in connections:
        connection.close()
    until(lambda: proxy.status()["sessions"] == 0)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells whose child a process is")
def test_killed_worker_is_replaced_and_counted_as_an_internal_error(rowtap, users, redis_client):
    proxy = rowtap([USERS], TWO)
    until(lambda: proxy.get("/readyz")[0] == 200)
    connections = [read(proxy, number) for number in range(1, 11)]
    proxy.settle()
    before = set(children(proxy.pid))
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: "workers do not answer" in proxy.get("/readyz")[1])
    until(lambda: proxy.get("/readyz")[0] == 200)
    assert "worker process ends unexpectedly" in proxy.log_text()
    assert proxy.status()["internal_errors"] == 1
    assert 'rowtap_internal_errors_total{where="worker"} 1.0' in proxy.get("/metrics")[1]
    assert len(before & set(children(proxy.pid))) == 1
    alive = 0
    for number, connection in enumerate(connections, 21):
        try:
            read(proxy, number, connection=connection)
            alive += 1
        except psycopg.OperationalError:
            continue
    # The kernel decides which worker accepts which connection.
    assert proxy.status()["sessions"] == alive
    fresh = [read(proxy, number) for number in range(41, 51)]
    proxy.settle()
    assert proxy.status()["sessions"] == alive + len(fresh)
    for key in redis_client.keys("users:*"):
        assert redis_client.get(key) == b"name " + key.partition(b":")[2]


def test_workers_auto_starts_one_for_each_core(rowtap):
    proxy = rowtap([USERS], {"proxy": {"workers": "auto"}})
    until(lambda: proxy.status()["workers"] == cores())


def test_readyz_is_503_while_postgresql_is_down(rowtap):
    port = free_port()
    proxy = rowtap([USERS], {"postgres": {"port": port}})
    status, reasons = proxy.get("/readyz")
    assert status == 503
    assert f"could not connect to PostgreSQL at {HOST}:{port}: connection refused" in reasons
    assert proxy.status()["postgres"] == "down"
    assert proxy.get("/healthz")[0] == 200


def test_readyz_is_503_while_redis_is_down(rowtap):
    proxy = rowtap([USERS], {"redis": {"url": f"redis://{HOST}:{free_port()}"}})
    assert proxy.get("/readyz") == (503, "Redis cannot be reached\n")
    assert proxy.status()["redis"] == "down"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("section", "what"), [("proxy", "proxy.listen"), ("admin", "admin.listen")])
def test_address_in_use_is_one_error_line_and_status_1(rowtap, rowtap_command, workers, section, what):
    proxy = rowtap()
    config = proxy.config | {
        "proxy": {"listen": f"{HOST}:{free_port()}", "workers": workers},
        "admin": {"listen": f"{HOST}:{free_port()}"},
    }
    config[section] = config[section] | {"listen": proxy.config[section]["listen"]}
    done = rowtap_command("serve", config=config)
    assert done.returncode == 1
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line]
    assert what in line
    assert "already in use" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_proxy_without_an_admin_endpoint_serves_and_stops(rowtap_process, workers):
    process, dsn = rowtap_process({"proxy": {"workers": workers}, "admin": {"listen": "off"}})

    def selected():
        try:
            with psycopg.connect(dsn, connect_timeout=20) as connection:
                return connection.execute("SELECT 1").fetchone()
        except psycopg.OperationalError:
            assert process.poll() is None
            return None

    assert until(selected) == (1,)
    process.terminate()
    assert process.wait(15) == 0


@pytest.fixture
def rowtap_process(tmp_path, postgres, database, redis_url):
    """`rowtap_process(config)`: a `serve` process that has perhaps no admin endpoint, and a connection string."""
    processes = []

    def start(config):
        port = free_port()
        defaults = {
            "proxy": {"listen": f"{HOST}:{port}"},
            "postgres": {"host": HOST, "port": postgres.port, "database": database},
            "redis": {"url": redis_url},
        }
        path = tmp_path / "config.toml"
        path.write_text(toml(merged(defaults, config)))
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        processes.append(process)
        return process, f"host={HOST} port={port} user={postgres.user} dbname={database}"

    yield start
    for process in processes:
        process.kill()
        process.wait()
