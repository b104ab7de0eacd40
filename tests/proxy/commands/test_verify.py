"""What ``rowtap verify`` calls equal, absent and stale, and when it looks again."""

import asyncio
import json
import threading
import time

import pytest

from proxy.commands import redis_reader, verify
from proxy.config import load as config
from proxy.demo.servers import HOST, free_port

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}


@pytest.fixture
def configure(postgres, database, redis_url):
    """`configure(table, …)`: a configuration that means the fixtures' servers."""

    def make(*tables, **environment):
        defaults = {
            "ROWTAP_POSTGRES__HOST": HOST,
            "ROWTAP_POSTGRES__PORT": str(postgres.port),
            "ROWTAP_POSTGRES__DATABASE": database,
            "ROWTAP_REDIS__URL": redis_url,
            "ROWTAP_TABLE": json.dumps(tables),
        }
        return config.load(None, None, defaults | environment)

    return make


@pytest.fixture
def compare(configure, postgres, capsys):
    """`compare(table, …, status=1)`: the tables of the JSON report."""

    def run(*tables, status=0, settle=0.01, only=()):
        capsys.readouterr()
        found = verify.run(configure(*tables), f"user={postgres.user}", only, as_json=True, settle=settle)
        printed = capsys.readouterr()
        assert found == status, printed
        return json.loads(printed.out)["tables"]

    return run


@pytest.fixture
def users(connect, redis_client):
    """Three rows, the first two in Redis."""
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text, n numeric)")
    connect().execute("INSERT INTO users VALUES (1, 'one', 1.0), (2, 'two', 2.0), (3, 'three', NULL)")
    redis_client.mset({"users:1": "one", "users:2": "two"})


def numbers(tally):
    return {name: tally[name] for name in ("rows", "equal", "absent", "stale", "orphans")}


def stale(tally):
    return {entry["key"]: entry["reason"] for entry in tally["stale_keys"]}


def test_equal_and_absent(compare, users):
    (tally,) = compare(USERS)
    assert numbers(tally) == {"rows": 3, "equal": 2, "absent": 1, "stale": 0, "orphans": 0}


@pytest.mark.parametrize("value", ["Two", "", "two ", "null"])
def test_another_value(compare, users, redis_client, value):
    redis_client.set("users:2", value)
    (tally,) = compare(USERS, status=1)
    assert numbers(tally) == {"rows": 3, "equal": 1, "absent": 1, "stale": 1, "orphans": 0}
    assert stale(tally) == {"users:2": "differs from the row"}


def test_no_row(compare, users, redis_client):
    redis_client.mset({"users:4": "four", "users:05": "no key of an int", "user:6": "x", "xusers:1": "x"})
    (tally,) = compare(USERS, status=1)
    assert numbers(tally) == {"rows": 3, "equal": 2, "absent": 1, "stale": 1, "orphans": 1}
    assert stale(tally) == {"users:4": "there is no such row"}


def test_a_key_that_is_only_an_equal_number(compare, users, connect, redis_client):
    connect().execute("ALTER TABLE users ADD UNIQUE (n)")
    redis_client.mset({"n:1.0": "one", "n:2.00": "two", "n:x": "x"})
    (tally,) = compare(USERS | {"key": "n", "redis_key": "n:{n}"}, status=1)
    assert numbers(tally) == {"rows": 2, "equal": 1, "absent": 1, "stale": 2, "orphans": 2}
    assert stale(tally) == {"n:2.00": "there is no such row", "n:x": "there is no such row"}


def test_a_hash_is_compared_field_by_field(compare, users, redis_client):
    entry = USERS | {"value": ["name", "n"], "format": "hash", "redis_key": "h:{id}"}
    redis_client.hset("h:1", mapping={"name": "one", "n": "1.0"})
    redis_client.hset("h:2", mapping={"name": "two"})
    redis_client.hset("h:3", mapping={"name": "three", "n": ""})
    (tally,) = compare(entry, status=1)
    assert stale(tally) == {"h:2": "differs from the row", "h:3": "differs from the row"}
    redis_client.hset("h:2", "n", "2.0")
    redis_client.hdel("h:3", "n")
    (tally,) = compare(entry)
    assert tally["equal"] == 3


def test_json_is_compared_byte_by_byte(compare, users, redis_client):
    entry = USERS | {"value": ["name", "n"], "format": "json", "redis_key": "j:{id}"}
    redis_client.set("j:1", '{"name":"one","n":1.0}')
    redis_client.set("j:2", '{"name":"two","n":"2.0"}')
    redis_client.set("j:3", '{"name":"three","n":null}')
    (tally,) = compare(entry, status=1)
    assert stale(tally) == {"j:2": "differs from the row"}


def test_a_key_of_another_type(compare, users, redis_client):
    redis_client.delete("users:2")
    redis_client.rpush("users:2", "two")
    (tally,) = compare(USERS, status=1)
    assert stale(tally) == {"users:2": "Redis holds another type than format string has"}


def test_a_null_has_no_key(compare, users, redis_client):
    entry = USERS | {"value": "n", "redis_key": "n:{id}"}
    (tally,) = compare(entry)
    assert (tally["rows"], tally["absent"], tally["keyless"]) == (3, 2, 1)
    redis_client.set("n:3", "3.0")
    (tally,) = compare(entry, status=1)
    assert stale(tally) == {"n:3": "the row has no value"}
    assert tally["rows"] == 3


def test_composite_keys_and_their_orphans(compare, connect, redis_client):
    connect().execute("CREATE TABLE users (a text, b int, name text, PRIMARY KEY (a, b))")
    connect().execute("INSERT INTO users VALUES ('x:y', 1, 'x'), ('%', 2, 'y'), ('', 3, 'z')")
    entry = USERS | {"key": ["a", "b"], "redis_key": "u:{a}:{b}"}
    redis_client.mset({"u:x%3Ay:1": "x", "u:%25:2": "y", "u::3": "z", "u:x%3ay:1": "no key of ours", "u:x%3Ay:2": "q"})
    (tally,) = compare(entry, status=1)
    assert numbers(tally) == {"rows": 3, "equal": 3, "absent": 0, "stale": 1, "orphans": 1}
    assert stale(tally) == {"u:x%3Ay:2": "there is no such row"}


def test_many_rows_and_many_stale_keys(compare, connect, redis_client, monkeypatch):
    monkeypatch.setattr(verify, "MAX_NAMED", 10)
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n, 'x' FROM generate_series(1, 4000) n")
    redis_client.mset({f"users:{number}": "y" if number % 2 else "x" for number in range(2001, 6001)})
    (tally,) = compare(USERS, status=1, settle=0)
    assert numbers(tally) == {"rows": 4000, "equal": 1000, "absent": 2000, "stale": 3000, "orphans": 2000}
    assert len(tally["stale_keys"]) == 10


def test_a_difference_that_goes_away_is_none(compare, users, redis_client, connect):
    """Redis is a moment behind: the row was written, its key is about to be."""
    connect().execute("UPDATE users SET name = 'new' WHERE id = 2")
    timer = threading.Timer(0.3, lambda: redis_client.set("users:2", "new"))
    timer.start()
    (tally,) = compare(USERS, settle=0.4)
    timer.join()
    assert numbers(tally) == {"rows": 3, "equal": 2, "absent": 1, "stale": 0, "orphans": 0}


def test_a_key_that_goes_away_is_absent(compare, users, redis_client):
    redis_client.set("users:2", "old")
    redis_client.set("users:4", "deleted just now")
    timer = threading.Timer(0.3, lambda: redis_client.delete("users:2", "users:4"))
    timer.start()
    (tally,) = compare(USERS, settle=0.4)
    timer.join()
    assert numbers(tally) == {"rows": 3, "equal": 1, "absent": 2, "stale": 0, "orphans": 0}


def test_a_key_that_keeps_changing_is_not_judged(compare, users, redis_client, capsys, monkeypatch):
    """Every look finds another value, never the row's: a row that is written without pause looks like this."""
    asked = redis_reader.Keys.get
    number = iter(range(10_000))

    async def get(self, keys, form):
        await asyncio.to_thread(redis_client.set, "users:2", f"value {next(number)}")
        return await asked(self, keys, form)

    monkeypatch.setattr(redis_reader.Keys, "get", get)
    (tally,) = compare(USERS, settle=0)
    assert (tally["changing"], tally["stale"], tally["equal"], tally["rows"]) == (1, 0, 1, 3)


def test_looks_are_apart(compare, users, redis_client):
    redis_client.set("users:2", "old")
    began = time.monotonic()
    compare(USERS, status=1, settle=0.2)
    assert time.monotonic() - began >= 0.2 * (verify.LOOKS - 1)


def test_two_rules_do_not_take_each_others_keys(compare, users, redis_client):
    names = USERS | {"key": "id", "redis_key": "users:{id}:name"}
    redis_client.mset({"users:1:name": "one", "users:9:name": "nine"})
    first, second = compare(USERS, names, status=1)
    assert stale(first) == {}
    assert stale(second) == {"users:9:name": "there is no such row"}


def test_keys_that_another_databases_rule_may_have_written(compare, connect, database, redis_client):
    connect().execute("CREATE TABLE users (id text PRIMARY KEY, name text)")
    redis_client.mset({"users:1": "here or there", "users:x": "here alone"})
    there = USERS | {"database": "elsewhere", "redis_key": "users:1{id}"}
    (tally,) = compare(USERS, there, only=[f"{database}.public.users"], status=1)
    assert stale(tally) == {"users:x": "there is no such row"}
    assert tally["shared"] == 1


def test_only_what_was_asked_for(compare, users, connect, redis_client):
    connect().execute("CREATE TABLE orders (id int PRIMARY KEY, name text)")
    redis_client.set("orders:1", "stale")
    orders = USERS | {"name": "orders", "redis_key": "orders:{id}"}
    (tally,) = compare(USERS, orders, only=["users"])
    assert tally["rows"] == 3
    assert [tally["stale"] for tally in compare(USERS, orders, status=1)] == [0, 1]


def test_a_table_that_cannot_be_compared(configure, postgres, users, redis_client, capsys):
    redis_client.set("users:2", "old")
    gone = USERS | {"name": "gone", "redis_key": "gone:{id}"}
    money = USERS | {"value": "m", "redis_key": "money:{id}"}
    settings = configure(gone, USERS, money)
    assert verify.run(settings, f"user={postgres.user}", (), settle=0) == 1, "what is stale counts most"
    printed = capsys.readouterr()
    assert "table public.gone does not exist" in printed.err
    assert "column 'm' of table public.users does not exist" in printed.err
    redis_client.set("users:2", "two")
    assert verify.run(settings, f"user={postgres.user}", (), settle=0) == 2


def test_a_column_that_cannot_be_compared(configure, postgres, users, connect, capsys):
    connect().execute("ALTER TABLE users ADD m money")
    settings = configure(USERS | {"value": "m"}, USERS | {"redis_key": "u:{id}"})
    assert verify.run(settings, f"user={postgres.user}", (), as_json=True) == 2
    report = json.loads(capsys.readouterr().out)
    assert [tally["rows"] for tally in report["tables"]] == [3]
    assert "money prints as lc_monetary says" in report["problems"][0]


@pytest.mark.parametrize("as_json", [False, True])
def test_nobody_there(configure, users, postgres, capsys, as_json):
    for environment in (
        {"ROWTAP_POSTGRES__PORT": str(free_port())},
        {"ROWTAP_REDIS__URL": f"redis://:geheim@{HOST}:{free_port()}"},
    ):
        assert verify.run(configure(USERS, **environment), f"user={postgres.user}", (), as_json=as_json) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert "geheim" not in printed.out + printed.err
        if as_json:
            assert json.loads(printed.out)["problems"] == [printed.err.removeprefix("error: ").rstrip("\n")]


def test_what_people_read(configure, postgres, users, database, redis_client, capsys):
    redis_client.mset({"users:2": "old", "users:5": "five"})
    assert verify.run(configure(USERS), f"user={postgres.user}", (), settle=0) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"stale: {database}.public.users: users:2: differs from the row",
        f"stale: {database}.public.users: users:5: there is no such row",
        f"{database}.public.users: 3 rows, 1 equal, 1 absent, 2 stale",
        f"note: {database}.public.users: 1 of the stale keys have no row",
    ]
