"""``rowtap warm``: where it connects, what it reads and counts, and how it goes on after an interruption."""

import asyncio
import json

import pytest

from proxy.commands import lookup, warm
from proxy.commands.state_file import StateFile, TableProgress
from proxy.commands.table_reader import ReadFailure
from proxy.commands.throttle import Throttle
from proxy.commands.warm import proxy_as_server
from proxy.config.load import load
from tests.fix_proxy import toml

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}


@pytest.fixture
def proxy(rowtap, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text, mail text)")
    connect().execute("INSERT INTO users SELECT n, 'name ' || n, 'mail ' || n FROM generate_series(1, 500) n")
    return rowtap([USERS])


@pytest.fixture
def run(proxy, capsys):
    """`run(table="users", …)`: (exit status, standard output, standard error)."""

    def run(*tables, path=None, **arguments):
        settings = load(path or proxy.config_path, None, {})
        status = warm.run(settings, f"user={proxy.user}", tables, **{"state_path": None} | arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def configured(**environment):
    return load(None, None, {f"ROWTAP_{name}": value for name, value in environment.items()})


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:7000", "127.0.0.1", 7000),
        ("*:7000", "localhost", 7000),
        ("0.0.0.0:7000", "127.0.0.1", 7000),
        ("[::]:7000", "::1", 7000),
        ("[::1]:7000", "::1", 7000),
        ("/run/rowtap:7000", "/run/rowtap", 7000),
        ('["db.example:7001", "127.0.0.1:7000"]', "db.example", 7001),
    ],
)
def test_connection_goes_to_where_the_proxy_listens(listen, host, port):
    settings = proxy_as_server(configured(PROXY__LISTEN=listen, POSTGRES__HOST="server", POSTGRES__SSLMODE="require"))
    assert (settings.host, settings.port, settings.sslmode) == (host, port, "prefer")
    parameters = lookup.connection_parameters(settings, "user=me dbname=x sslmode=disable", "app")
    assert (parameters["host"], parameters["dbname"], parameters["sslmode"]) == (host, "app", "disable")
    assert lookup.connection_parameters(settings, "host=there port=1", "app")["host"] == "there"


def test_connection_to_a_proxy_that_requires_tls_uses_tls():
    settings = configured(PROXY__TLS__CERT="c", PROXY__TLS__KEY="k", PROXY__TLS__REQUIRED="true")
    assert proxy_as_server(settings).sslmode == "require"


def test_no_page_has_more_rows_than_fill(rowtap, run, connect, redis_client):
    connect().execute("DELETE FROM users WHERE id > 50")
    proxy = rowtap([USERS | {"max_rows": 7}])
    status, out, _ = run(path=proxy.config_path)
    assert (status, out) == (0, f"{proxy.database}.public.users: 50 of 50 keys present\n")
    assert len(redis_client.keys("users:*")) == 50
    (counted,) = proxy.status()["tables"].values()
    assert counted["fills"] == 50


def test_rows_with_a_null_value_are_not_counted(run, proxy, connect):
    connect().execute("UPDATE users SET name = NULL WHERE id <= 100")
    assert run()[1] == f"{proxy.database}.public.users: 400 of 400 keys present\n"


def test_empty_table_has_no_rows_and_is_status_0(run, proxy, connect):
    connect().execute("TRUNCATE users")
    assert run()[:2] == (0, f"{proxy.database}.public.users: no rows\n")


def test_table_of_which_nothing_fills_is_status_1(proxy, postgres, capsys):
    settings = load(proxy.config_path, None, {})
    assert warm.run(settings, postgres.dsn(), (), state_path=None) == 1
    assert "0 of 500 keys present; does --dsn lead to the proxy" in capsys.readouterr().out


def test_state_file_is_removed_when_all_is_read(run, proxy, tmp_path):
    state = tmp_path / "state.json"
    assert run(state_path=state)[0] == 0
    assert not state.exists()
    assert list(tmp_path.glob("state*")) == []


def test_reading_begins_behind_the_position_of_the_state_file(run, proxy, tmp_path, redis_client):
    state = StateFile(tmp_path / "state.json")
    label = f"{proxy.database}.public.users"
    state.tables[label] = TableProgress(("id",), (b"490",), rows=490, present=480)
    state.save(at_once=True)
    status, out, _ = run(state_path=state.path)
    assert status == 0
    assert out.startswith(
        f"{label}: 490 of 500 keys present; rowtap_unfilled_rows_total and rowtap_fills_refused_total"
    )
    assert sorted(redis_client.keys("users:*")) == sorted(b"users:%d" % number for number in range(491, 501))


def test_table_that_the_state_file_calls_done_is_not_read(run, proxy, tmp_path, redis_client):
    state = StateFile(tmp_path / "state.json")
    state.tables[f"{proxy.database}.public.users"] = TableProgress(("id",), (b"500",), 500, 500, done=True)
    state.save(at_once=True)
    assert run(state_path=state.path)[0] == 0
    assert redis_client.keys("users:*") == []


def test_state_file_of_another_key_is_refused_and_kept(run, proxy, tmp_path):
    state = StateFile(tmp_path / "state.json")
    state.tables[f"{proxy.database}.public.users"] = TableProgress(("tenant", "id"), (b"a", b"1"))
    state.save(at_once=True)
    status, _, err = run(state_path=state.path)
    assert status == 2
    assert "was read by tenant, id and is by id now" in err
    assert (tmp_path / "state.json").exists()


def test_from_key_that_is_not_of_the_columns_type_is_one_error_line(run, proxy):
    status, _, err = run(from_key=["abc"])
    assert status == 1
    assert 'invalid input syntax for type integer: "abc"' in err
    assert err.count("\n") == 1


def test_failure_prints_the_from_key_to_go_on_with(run, proxy, connect, monkeypatch):
    connect().execute("INSERT INTO users SELECT n, 'x' FROM generate_series(501, 9000) n")
    real_wait = Throttle.wait
    pages = iter(range(100))

    async def wait(self):
        if next(pages) == 8:
            raise ReadFailure("no more")
        await real_wait(self)

    monkeypatch.setattr(Throttle, "wait", wait)
    monkeypatch.setattr(warm, "MAX_UNCHECKED", 1000)
    status, _, err = run()
    assert status == 1
    assert err.splitlines()[0] == "error: no more"
    words = err.splitlines()[1].split()
    assert words[:5] == ["to", "go", "on:", "--table", f"{proxy.database}.public.users"]
    place = json.loads(words[-1])
    assert 500 < int(place) < 9000
    monkeypatch.setattr(Throttle, "wait", real_wait)
    _, out, _ = run(from_key=[place])
    assert out.startswith(f"{proxy.database}.public.users: {9001 - int(place)} of {9001 - int(place)} keys")


def test_rows_of_missing_keys_are_read_once_more(run, proxy, redis_client, monkeypatch):
    """Two keys are gone when they are looked up first, as if writes at the same time had refused their fills."""
    real_look_up = warm._PresenceCheck.look_up
    gone: list[int] = []

    async def look_up(self, leave):
        if not leave and not gone:
            gone.append(await asyncio.to_thread(redis_client.delete, "users:5", "users:6"))
        await real_look_up(self, leave)

    monkeypatch.setattr(warm._PresenceCheck, "look_up", look_up)
    assert run()[1] == f"{proxy.database}.public.users: 500 of 500 keys present\n"
    assert gone == [2]
    assert redis_client.get("users:5") == b"name 5"


def test_from_key_with_too_many_columns_is_a_usage_error(run, proxy):
    status, _, err = run(from_key=["1", "2"])
    assert (status, err) == (2, "error: --from-key is needed once for each of id\n")


def test_interruption_is_status_130_and_prints_how_to_go_on(run, proxy, tmp_path, monkeypatch):
    async def settle(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Throttle, "settle", settle)
    monkeypatch.setattr(warm, "MAX_UNCHECKED", 10)
    state = tmp_path / "state.json"
    status, _, err = run(state_path=state)
    assert status == 130
    assert err.splitlines()[-2:] == ["interrupted", f"run the same command again to go on: {state} says from where"]
    status, _, err = run()
    assert status == 130
    assert err.splitlines()[-1].startswith(f"to go on: --table {proxy.database}.public.users --from-key ")


def test_failure_before_the_first_row_prints_nothing_to_go_on_with(run, proxy, monkeypatch):
    async def wait(self):
        raise ReadFailure("no more")

    monkeypatch.setattr(Throttle, "wait", wait)
    assert run()[2] == "error: no more\n"


def test_from_key_with_several_tables_is_a_usage_error(run, rowtap):
    proxy = rowtap([USERS, USERS | {"value": "mail", "redis_key": "mails:{id}"}])
    assert run(path=proxy.config_path, from_key=["1"])[::2] == (
        2,
        "error: --from-key is for one table: name it with --table\n",
    )


def test_table_that_cannot_be_captured_is_status_2_and_the_others_are_read(run, rowtap, redis_client):
    proxy = rowtap([USERS | {"name": "gone", "redis_key": "gone:{id}"}, USERS])
    status, out, err = run(path=proxy.config_path)
    assert status == 2
    assert "table public.gone does not exist" in err
    assert out.endswith("500 of 500 keys present\n")


def test_missing_admin_endpoint_is_a_note(run, proxy, tmp_path):
    path = tmp_path / "without.toml"
    path.write_text(toml(proxy.config | {"admin": {"listen": "off"}}))
    status, _, err = run(path=path)
    assert status == 0
    assert err.startswith("note: the admin endpoint does not answer")
