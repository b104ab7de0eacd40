"""``rowtap warm`` and ``rowtap verify`` against a running proxy, PostgreSQL and Redis."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.fix_postgres import fresh_database
from tests.fix_proxy import ROOT, toml

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
ORDERS = {
    "name": "shop.orders",
    "key": ["number", "tenant"],
    "value": ["state", "total", "at"],
    "redis_key": "order:{tenant}:{number}",
    "format": "json",
    "max_rows": 50,
    "ttl": "1h",
}
DETAILS = {
    "name": "shop.orders",
    "key": ["tenant", "number"],
    "value": ["state", "total"],
    "redis_key": "detail:{tenant}:{number}",
    "format": "hash",
}
NOWHERE = {"postgres": {"database": "app", "port": 1}, "table": [USERS, ORDERS]}
ROWS = 1234
SCHEMA = f"""
CREATE TABLE users (id bigint PRIMARY KEY, name text);
INSERT INTO users SELECT n, 'name ' || n FROM generate_series(1, {ROWS}) n;
CREATE SCHEMA shop;
CREATE TABLE shop.orders (tenant text, number int, state text, total numeric(10, 2), at timestamptz, spot float8,
                          PRIMARY KEY (tenant, number));
INSERT INTO shop.orders
SELECT 'a:' || n % 7, n, CASE WHEN n % 5 > 0 THEN 'paid' END, n / 7.0, 'epoch'::timestamptz + n * '1h'::interval
FROM generate_series(1, 300) n;
"""


@pytest.fixture
def proxy(rowtap, connect):
    connect().execute(SCHEMA)
    return rowtap([USERS, ORDERS, DETAILS])


@pytest.fixture
def command(proxy, rowtap_command):
    """`command("warm", …)`: runs a command with the proxy's configuration."""

    def run(name, *args, **kwargs):
        return rowtap_command(name, "--dsn", f"user={proxy.user}", *args, config=proxy.config, **kwargs)

    return run


def lines(done, status=0):
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_every_key_is_present_after_warm_and_verify_finds_no_stale_key(proxy, command, redis_client, connect):
    connect().execute("INSERT INTO users VALUES (-1, NULL)")
    connect().execute(f"ALTER DATABASE {proxy.database} SET DateStyle TO 'German'")
    connect().execute(f"ALTER DATABASE {proxy.database} SET TimeZone TO 'Asia/Tokyo'")
    assert lines(command("warm")) == [
        f"{proxy.database}.public.users: {ROWS} of {ROWS} keys present",
        f"{proxy.database}.shop.orders#order:{{tenant}}:{{number}}: 300 of 300 keys present",
        f"{proxy.database}.shop.orders#detail:{{tenant}}:{{number}}: 300 of 300 keys present",
    ]
    assert redis_client.get("users:7") == b"name 7"
    assert json.loads(redis_client.get("order:a%3A1:8"))["total"] == 1.14
    assert redis_client.hgetall("detail:a%3A5:5") == {b"total": b"0.71"}
    assert redis_client.pttl("order:a%3A1:8") > 0
    assert redis_client.exists("users:-1") == 0
    assert lines(command("verify")) == [
        f"{proxy.database}.public.users: {ROWS + 1} rows, {ROWS} equal, 0 absent, 0 stale",
        f"{proxy.database}.shop.orders#order:{{tenant}}:{{number}}: 300 rows, 300 equal, 0 absent, 0 stale",
        f"{proxy.database}.shop.orders#detail:{{tenant}}:{{number}}: 300 rows, 300 equal, 0 absent, 0 stale",
        f"note: {proxy.database}.public.users: 1 rows have no key, since their value is NULL",
    ]


def test_verify_names_each_stale_key_with_the_reason(proxy, command, redis_client):
    lines(command("warm"))
    redis_client.set("users:17", "tampered")
    redis_client.set("users:99999", "an orphan")
    redis_client.set("users:99999999999999999999", "not even a bigint")
    redis_client.set("users:x", "not a configured key")
    redis_client.delete("users:18")
    redis_client.set("detail:a%3A1:8", "a string")
    redis_client.hset("detail:a%3A2:9", "state", "lost")
    redis_client.hset("detail:a%3A3:10", "more", "x")
    redis_client.set("order:a%3A1:9", "{}")
    redis_client.delete("order:a%3A2:2")
    redis_client.hset("order:a%3A2:2", "state", "paid")
    done = command("verify", "--settle", "10ms", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    users, orders, details = found["tables"]
    assert {name: users[name] for name in ("rows", "equal", "absent", "stale", "orphans")} == {
        "rows": ROWS,
        "equal": ROWS - 2,
        "absent": 1,
        "stale": 2,
        "orphans": 1,
    }
    assert users["stale_keys"] == [
        {"key": "users:17", "reason": "differs from the row"},
        {"key": "users:99999", "reason": "there is no such row"},
    ]
    assert {entry["key"]: entry["reason"] for entry in details["stale_keys"]} == {
        "detail:a%3A1:8": "Redis holds another type than format hash has",
        "detail:a%3A2:9": "differs from the row",
        "detail:a%3A3:10": "differs from the row",
    }
    assert {entry["key"]: entry["reason"] for entry in orders["stale_keys"]} == {
        "order:a%3A2:2": "Redis holds another type than format json has",
        "order:a%3A1:9": "there is no such row",
    }
    plain = lines(command("verify", "--settle", "10ms", "--table", "public.users"), 1)
    assert plain[0] == f"stale: {proxy.database}.public.users: users:17: differs from the row"
    assert plain[-1] == f"note: {proxy.database}.public.users: 1 of the stale keys have no row"


def test_verify_finds_no_stale_key_while_rows_change(proxy, command):
    lines(command("warm", "--table", "users"))
    script = (
        "import psycopg, sys, itertools\n"
        "with psycopg.connect(sys.argv[1], autocommit=True) as c:\n"
        "    for n in itertools.count():\n"
        "        c.execute('UPDATE users SET name = %s WHERE id = %s RETURNING id, name', (str(n), n % 5 + 1))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, proxy.dsn()]) as writer:
        try:
            for _ in range(3):
                found = command("verify", "--table", "users", "--settle", "20ms")
                assert found.returncode == 0, found.stdout
        finally:
            writer.kill()
    proxy.settle()
    assert lines(command("verify", "--table", "users"))[0].endswith("0 stale")


def test_interrupted_warm_continues_where_it_stopped(proxy, command, connect, tmp_path, redis_client):
    connect().execute("INSERT INTO users SELECT n, 'x' FROM generate_series(10000, 60000) n")
    path = tmp_path / "command.toml"
    path.write_text(toml(proxy.config))
    state = tmp_path / "state.json"
    arguments = [sys.executable, "-m", "proxy", "warm", "--dsn", f"user={proxy.user}", "--config", str(path)]
    arguments += ["--state", str(state), "--table", "users"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        while (
            not state.exists() or not json.loads(state.read_text())["tables"][f"{proxy.database}.public.users"]["rows"]
        ):
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=20)
    assert first.returncode == 130
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    done = json.loads(state.read_text())["tables"][f"{proxy.database}.public.users"]
    assert 0 < done["rows"] < 51_235
    redis_client.flushdb()
    proxy.settle()
    (summary,) = lines(command("warm", "--table", "users", "--state", state, timeout=60))
    assert summary.endswith("of 51235 keys present")
    assert not state.exists()
    assert redis_client.get("users:60000") == b"x"
    assert redis_client.get("users:1") is None, "what had been read was not read again"


def test_warm_with_from_key_begins_at_that_key(proxy, command, redis_client):
    (summary,) = lines(command("warm", "--table", "users", "--from-key", "1200"))
    assert summary.endswith(": 35 of 35 keys present")
    assert redis_client.get("users:1200") == b"name 1200"
    assert redis_client.get("users:1199") is None
    arguments = ("--table", f"{proxy.database}.shop.orders#order:{{tenant}}:{{number}}")
    (summary,) = lines(command("warm", *arguments, "--from-key", "a:6", "--from-key", "100"))
    assert summary.endswith(": 29 of 29 keys present"), "the primary key's order counts, not the configuration's"


def test_warm_and_verify_read_each_configured_database(rowtap, rowtap_command, postgres, connect, redis_client):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'here')")
    with fresh_database(postgres) as other:
        proxy = rowtap([USERS, USERS | {"database": other, "redis_key": "there:{id}"}])
        with proxy.connect(dbname=other) as connection:
            connection.execute("CREATE TABLE users (id text PRIMARY KEY, name text)")
            connection.execute("INSERT INTO users VALUES ('ü', 'there')")
        proxy.settle()
        done = rowtap_command("warm", "--dsn", f"user={proxy.user} dbname=ignored", config=proxy.config)
        assert len(lines(done)) == 2
        assert redis_client.get("users:1") == b"here"
        assert redis_client.get("there:ü") == b"there"
        redis_client.set("there:none", "x")
        done = rowtap_command("verify", "--settle", "0ms", "--dsn", f"user={proxy.user}", config=proxy.config)
        assert lines(done, 1)[0] == f"stale: {other}.public.users: there:none: there is no such row"


def test_warm_and_verify_report_a_table_that_cannot_be_captured(proxy, command, connect):
    connect().execute("DROP TABLE shop.orders")
    for name in ("warm", "verify"):
        done = command(name)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "table shop.orders does not exist" in done.stderr
        assert len(done.stdout.splitlines()) == 1, "the other table is done all the same"


def test_warm_works_without_the_admin_endpoint(rowtap, rowtap_command, connect):
    connect().execute(SCHEMA)
    proxy = rowtap([USERS])
    silent = proxy.config | {"admin": {"listen": "off"}}
    done = rowtap_command("warm", "--dsn", f"user={proxy.user}", config=silent)
    assert lines(done) == [f"{proxy.database}.public.users: {ROWS} of {ROWS} keys present"]
    assert "note: the admin endpoint does not answer" in done.stderr


def test_unreachable_redis_is_reported_in_one_line_without_its_password(proxy, rowtap_command):
    from proxy.demo.servers import HOST, free_port

    config = proxy.config | {"redis": {"url": f"redis://:geheim@{HOST}:{free_port()}"}}
    for name, status in (("warm", 1), ("verify", 2)):
        done = rowtap_command(name, "--dsn", f"user={proxy.user}", config=config)
        assert done.returncode == status
        assert done.stderr.startswith("error: Redis at redis://")
        assert done.stderr.count("\n") == 1
        assert "geheim" not in done.stderr


def test_warm_fails_and_verify_works_while_the_proxy_is_down(proxy, command):
    proxy.stop()
    done = command("warm")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {proxy.database}: ")
    assert done.stderr.count("\n") == 1
    assert lines(command("verify"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("warm", "--table", "absent"), "no [[table]] is configured for 'absent'"),
        (("verify", "--table", "a.b.c"), "no [[table]] is configured for 'a.b.c'"),
        (("verify", "--settle", "soon"), "must be a duration"),
        (("warm", "--from-key", "1"), "--from-key is for one table"),
        (("warm", "--state", "/proc/version"), "is no state file"),
    ],
)
def test_misuse_is_reported_in_one_line(rowtap_command, arguments, words):
    done = rowtap_command(*arguments, "--dsn", "user=absent", config=NOWHERE)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_login_is_reported_in_one_line(rowtap_command):
    for name in ("warm", "verify"):
        done = rowtap_command(name, config=NOWHERE)
        assert done.returncode == 2
        assert done.stderr == "error: no login: give --dsn, or PGUSER and the like\n"
