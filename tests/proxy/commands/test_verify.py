"""What ``rowtap verify`` calls equal, absent and stale, and when it checks a key again."""

import asyncio
import json
import threading
import time

import pytest

from proxy.commands import redis_reader, verify
from proxy.demo.servers import HOST, free_port

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}


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


def numbers(result):
    return {name: result[name] for name in ("rows", "equal", "absent", "stale", "orphans")}


def stale(result):
    return {entry["key"]: entry["reason"] for entry in result["stale_keys"]}


def test_key_is_equal_and_row_without_key_is_absent(compare, users):
    (result,) = compare(USERS)
    assert numbers(result) == {"rows": 3, "equal": 2, "absent": 1, "stale": 0, "orphans": 0}


@pytest.mark.parametrize("value", ["Two", "", "two ", "null"])
def test_key_with_another_value_is_stale(compare, users, redis_client, value):
    redis_client.set("users:2", value)
    (result,) = compare(USERS, status=1)
    assert numbers(result) == {"rows": 3, "equal": 1, "absent": 1, "stale": 1, "orphans": 0}
    assert stale(result) == {"users:2": "differs from the row"}


def test_key_without_a_row_is_stale_if_the_template_can_make_it(compare, users, redis_client):
    redis_client.mset({"users:4": "four", "users:05": "no key of an int", "user:6": "x", "xusers:1": "x"})
    (result,) = compare(USERS, status=1)
    assert numbers(result) == {"rows": 3, "equal": 2, "absent": 1, "stale": 1, "orphans": 1}
    assert stale(result) == {"users:4": "there is no such row"}


def test_key_whose_text_differs_from_an_equal_number_is_stale(compare, users, connect, redis_client):
    connect().execute("ALTER TABLE users ADD UNIQUE (n)")
    redis_client.mset({"n:1.0": "one", "n:2.00": "two", "n:x": "x"})
    (result,) = compare(USERS | {"key": "n", "redis_key": "n:{n}"}, status=1)
    assert numbers(result) == {"rows": 2, "equal": 1, "absent": 1, "stale": 2, "orphans": 2}
    assert stale(result) == {"n:2.00": "there is no such row", "n:x": "there is no such row"}


def test_hash_with_a_missing_or_additional_field_is_stale(compare, users, redis_client):
    entry = USERS | {"value": ["name", "n"], "format": "hash", "redis_key": "h:{id}"}
    redis_client.hset("h:1", mapping={"name": "one", "n": "1.0"})
    redis_client.hset("h:2", mapping={"name": "two"})
    redis_client.hset("h:3", mapping={"name": "three", "n": ""})
    (result,) = compare(entry, status=1)
    assert stale(result) == {"h:2": "differs from the row", "h:3": "differs from the row"}
    redis_client.hset("h:2", "n", "2.0")
    redis_client.hdel("h:3", "n")
    (result,) = compare(entry)
    assert result["equal"] == 3


def test_json_value_of_another_type_is_stale(compare, users, redis_client):
    entry = USERS | {"value": ["name", "n"], "format": "json", "redis_key": "j:{id}"}
    redis_client.set("j:1", '{"name":"one","n":1.0}')
    redis_client.set("j:2", '{"name":"two","n":"2.0"}')
    redis_client.set("j:3", '{"name":"three","n":null}')
    (result,) = compare(entry, status=1)
    assert stale(result) == {"j:2": "differs from the row"}


def test_key_of_another_redis_type_is_stale(compare, users, redis_client):
    redis_client.delete("users:2")
    redis_client.rpush("users:2", "two")
    (result,) = compare(USERS, status=1)
    assert stale(result) == {"users:2": "Redis holds another type than format string has"}


def test_row_with_a_null_value_is_keyless_and_its_key_stale(compare, users, redis_client):
    entry = USERS | {"value": "n", "redis_key": "n:{id}"}
    (result,) = compare(entry)
    assert (result["rows"], result["absent"], result["keyless"]) == (3, 2, 1)
    redis_client.set("n:3", "3.0")
    (result,) = compare(entry, status=1)
    assert stale(result) == {"n:3": "the row has no value"}
    assert result["rows"] == 3


def test_composite_keys_are_compared_percent_decoded(compare, connect, redis_client):
    connect().execute("CREATE TABLE users (a text, b int, name text, PRIMARY KEY (a, b))")
    connect().execute("INSERT INTO users VALUES ('x:y', 1, 'x'), ('%', 2, 'y'), ('', 3, 'z')")
    entry = USERS | {"key": ["a", "b"], "redis_key": "u:{a}:{b}"}
    redis_client.mset({"u:x%3Ay:1": "x", "u:%25:2": "y", "u::3": "z", "u:x%3ay:1": "no key of ours", "u:x%3Ay:2": "q"})
    (result,) = compare(entry, status=1)
    assert numbers(result) == {"rows": 3, "equal": 3, "absent": 0, "stale": 1, "orphans": 1}
    assert stale(result) == {"u:x%3Ay:2": "there is no such row"}


def test_all_stale_keys_are_counted_and_the_first_listed(compare, connect, redis_client, monkeypatch):
    monkeypatch.setattr(verify, "MAX_LISTED", 10)
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n, 'x' FROM generate_series(1, 4000) n")
    redis_client.mset({f"users:{number}": "y" if number % 2 else "x" for number in range(2001, 6001)})
    (result,) = compare(USERS, status=1, settle=0)
    assert numbers(result) == {"rows": 4000, "equal": 1000, "absent": 2000, "stale": 3000, "orphans": 2000}
    assert len(result["stale_keys"]) == 10


def test_key_that_is_right_at_a_later_check_is_equal(compare, users, redis_client, connect):
    """Redis is a moment behind: the row has been written, and its key is written during the checks."""
    connect().execute("UPDATE users SET name = 'new' WHERE id = 2")
    timer = threading.Timer(0.3, lambda: redis_client.set("users:2", "new"))
    timer.start()
    (result,) = compare(USERS, settle=0.4)
    timer.join()
    assert numbers(result) == {"rows": 3, "equal": 2, "absent": 1, "stale": 0, "orphans": 0}


def test_key_that_is_gone_at_a_later_check_is_absent(compare, users, redis_client):
    redis_client.set("users:2", "old")
    redis_client.set("users:4", "deleted just now")
    timer = threading.Timer(0.3, lambda: redis_client.delete("users:2", "users:4"))
    timer.start()
    (result,) = compare(USERS, settle=0.4)
    timer.join()
    assert numbers(result) == {"rows": 3, "equal": 1, "absent": 2, "stale": 0, "orphans": 0}


def test_key_that_changes_before_every_check_is_changing_and_not_stale(
    compare, users, redis_client, capsys, monkeypatch
):
    """Every check finds another value, never the row's, as it does while the row is written without pause."""
    real_get = redis_reader.RedisKeys.get
    number = iter(range(10_000))

    async def get(self, keys, value_format):
        await asyncio.to_thread(redis_client.set, "users:2", f"value {next(number)}")
        return await real_get(self, keys, value_format)

    monkeypatch.setattr(redis_reader.RedisKeys, "get", get)
    (result,) = compare(USERS, settle=0)
    assert (result["changing"], result["stale"], result["equal"], result["rows"]) == (1, 0, 1, 3)


def test_checks_of_a_key_are_the_settle_time_apart(compare, users, redis_client):
    redis_client.set("users:2", "old")
    began = time.monotonic()
    compare(USERS, status=1, settle=0.2)
    assert time.monotonic() - began >= 0.2 * (verify.CHECKS - 1)


def test_key_of_one_rule_is_not_an_orphan_of_another(compare, users, redis_client):
    names = USERS | {"key": "id", "redis_key": "users:{id}:name"}
    redis_client.mset({"users:1:name": "one", "users:9:name": "nine"})
    first, second = compare(USERS, names, status=1)
    assert stale(first) == {}
    assert stale(second) == {"users:9:name": "there is no such row"}


def test_key_without_a_row_that_another_databases_rule_can_make_is_not_stale(compare, connect, database, redis_client):
    connect().execute("CREATE TABLE users (id text PRIMARY KEY, name text)")
    redis_client.mset({"users:1": "here or there", "users:x": "here alone"})
    there = USERS | {"database": "elsewhere", "redis_key": "users:1{id}"}
    (result,) = compare(USERS, there, only=[f"{database}.public.users"], status=1)
    assert stale(result) == {"users:x": "there is no such row"}
    assert result["shared"] == 1


def test_only_the_named_table_is_compared(compare, users, connect, redis_client):
    connect().execute("CREATE TABLE orders (id int PRIMARY KEY, name text)")
    redis_client.set("orders:1", "stale")
    orders = USERS | {"name": "orders", "redis_key": "orders:{id}"}
    (result,) = compare(USERS, orders, only=["users"])
    assert result["rows"] == 3
    assert [result["stale"] for result in compare(USERS, orders, status=1)] == [0, 1]


def test_table_that_cannot_be_captured_is_status_2_unless_another_is_stale(
    configure, postgres, users, redis_client, capsys
):
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


def test_column_that_cannot_be_captured_is_a_problem_in_the_report(configure, postgres, users, connect, capsys):
    connect().execute("ALTER TABLE users ADD m money")
    settings = configure(USERS | {"value": "m"}, USERS | {"redis_key": "u:{id}"})
    assert verify.run(settings, f"user={postgres.user}", (), as_json=True) == 2
    report = json.loads(capsys.readouterr().out)
    assert [result["rows"] for result in report["tables"]] == [3]
    assert "money prints as lc_monetary says" in report["problems"][0]


@pytest.mark.parametrize("as_json", [False, True])
def test_unreachable_server_is_one_error_line_and_status_2(configure, users, postgres, capsys, as_json):
    for environment in (
        {"POSTGRES__PORT": str(free_port())},
        {"REDIS__URL": f"redis://:geheim@{HOST}:{free_port()}"},
    ):
        assert verify.run(configure(USERS, **environment), f"user={postgres.user}", (), as_json=as_json) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert "geheim" not in printed.out + printed.err
        if as_json:
            assert json.loads(printed.out)["problems"] == [printed.err.removeprefix("error: ").rstrip("\n")]


def test_plain_report_lists_stale_keys_numbers_and_notes(configure, postgres, users, database, redis_client, capsys):
    redis_client.mset({"users:2": "old", "users:5": "five"})
    assert verify.run(configure(USERS), f"user={postgres.user}", (), settle=0) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"stale: {database}.public.users: users:2: differs from the row",
        f"stale: {database}.public.users: users:5: there is no such row",
        f"{database}.public.users: 3 rows, 1 equal, 1 absent, 2 stale",
        f"note: {database}.public.users: 1 of the stale keys have no row",
    ]


def test_report_on_a_terminal_is_a_table(configure, postgres, users, database, redis_client, capsys, monkeypatch):
    redis_client.set("users:2", "old")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert verify.run(configure(USERS), f"user={postgres.user}", (), settle=0) == 1
    printed = capsys.readouterr().out
    assert f"stale: {database}.public.users: users:2: differs from the row" in printed
    assert "\x1b[1;31m" in printed, "the number of stale keys, in bold red"
    for name in ("rows", "equal", "absent", "stale"):
        assert name in printed


def test_notes_give_the_numbers_that_are_no_matches(capsys):
    result = verify.TableResult("app.public.users", keyless=1, stale=3, orphans=2, changing=4, shared=5)
    result.stale_keys.append({"key": "users:1", "reason": "differs from the row"})
    verify._print([result])
    assert capsys.readouterr().out.splitlines() == [
        "stale: app.public.users: users:1: differs from the row",
        "stale: app.public.users: and 2 more",
        "app.public.users: 6 rows, 0 equal, 0 absent, 3 stale",
        "note: app.public.users: 2 of the stale keys have no row",
        "note: app.public.users: 1 rows have no key, since their value is NULL",
        "note: app.public.users: 4 keys had changed at every check, so that they could not be compared",
        "note: app.public.users: 5 keys without a row may be another [[table]]'s and are not counted as stale",
    ]


def test_finished_keys_are_forgotten_when_there_are_too_many(compare, users, redis_client, monkeypatch):
    monkeypatch.setattr(verify, "MAX_REMEMBERED", 1)
    redis_client.mset({"users:1": "old", "users:2": "old", "users:3": "old"})
    (result,) = compare(USERS, status=1, settle=0)
    assert result["stale"] == 3


def test_interruption_is_status_130_and_prints_what_was_compared(configure, postgres, users, capsys, monkeypatch):
    async def compare(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify._Comparison, "run", compare)
    assert verify.run(configure(USERS), f"user={postgres.user}", ()) == 130
    printed = capsys.readouterr()
    assert printed.err.endswith("error: interrupted\n")
    assert ": 0 rows" in printed.out
