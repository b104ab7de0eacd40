"""``rowtap warm`` piece by piece: where it goes, how it paces itself, what it remembers, and what it says."""

import asyncio
import contextlib
import json
import time

import pytest

from proxy.commands import lookup, warm
from proxy.commands.table_reader import Misuse, ReadFailure
from proxy.commands.warm import Pace, Progress, State, through
from proxy.config import load as config
from proxy.config.units import Address
from proxy.demo.servers import HOST, free_port

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
        settings = config.load(path or proxy.config_path, None, {})
        status = warm.run(settings, f"user={proxy.user}", tables, **{"state_path": None} | arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def load(**environment):
    return config.load(None, None, {f"ROWTAP_{name}": value for name, value in environment.items()})


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
def test_it_goes_where_the_proxy_listens(listen, host, port):
    settings = through(load(PROXY__LISTEN=listen, POSTGRES__HOST="server", POSTGRES__SSLMODE="require"))
    assert (settings.host, settings.port, settings.sslmode) == (host, port, "prefer")
    parameters = lookup.parameters(settings, "user=me dbname=x sslmode=disable", "app")
    assert (parameters["host"], parameters["dbname"], parameters["sslmode"]) == (host, "app", "disable")
    assert lookup.parameters(settings, "host=there port=1", "app")["host"] == "there"


def test_a_proxy_that_requires_tls_is_spoken_to_in_tls():
    settings = load(PROXY__TLS__CERT="c", PROXY__TLS__KEY="k", PROXY__TLS__REQUIRED="true")
    assert through(settings).sslmode == "require"


def test_batches_fill_whole(rowtap, run, connect, redis_client):
    connect().execute("DELETE FROM users WHERE id > 50")
    proxy = rowtap([USERS | {"max_rows": 7}])
    status, out, _ = run(path=proxy.config_path)
    assert (status, out) == (0, f"{proxy.database}.public.users: 50 of 50 keys present\n")
    assert len(redis_client.keys("users:*")) == 50
    (counted,) = proxy.status()["tables"].values()
    assert counted["fills"] == 50


def test_rows_without_a_value_have_no_key_to_be_present(run, proxy, connect):
    connect().execute("UPDATE users SET name = NULL WHERE id <= 100")
    assert run()[1] == f"{proxy.database}.public.users: 400 of 400 keys present\n"


def test_an_empty_table(run, proxy, connect):
    connect().execute("TRUNCATE users")
    assert run()[:2] == (0, f"{proxy.database}.public.users: no rows\n")


def test_nothing_filled_is_a_failure(proxy, postgres, capsys):
    settings = config.load(proxy.config_path, None, {})
    assert warm.run(settings, postgres.dsn(), (), state_path=None) == 1
    assert "0 of 500 keys present; does --dsn lead to the proxy" in capsys.readouterr().out


def test_the_state_is_gone_when_all_is_done(run, proxy, tmp_path):
    state = tmp_path / "state.json"
    assert run(state_path=state)[0] == 0
    assert not state.exists()
    assert list(tmp_path.glob("state*")) == []


def test_it_goes_on_where_the_state_says(run, proxy, tmp_path, redis_client):
    state = State(tmp_path / "state.json")
    label = f"{proxy.database}.public.users"
    state.tables[label] = Progress(("id",), (b"490",), rows=490, present=480)
    state.save(at_once=True)
    status, out, _ = run(state_path=state.path)
    assert status == 0
    assert out.startswith(
        f"{label}: 490 of 500 keys present; rowtap_unfilled_rows_total and rowtap_fills_refused_total"
    )
    assert sorted(redis_client.keys("users:*")) == sorted(b"users:%d" % number for number in range(491, 501))


def test_a_table_that_is_done_is_not_read_again(run, proxy, tmp_path, redis_client):
    state = State(tmp_path / "state.json")
    state.tables[f"{proxy.database}.public.users"] = Progress(("id",), (b"500",), 500, 500, done=True)
    state.save(at_once=True)
    assert run(state_path=state.path)[0] == 0
    assert redis_client.keys("users:*") == []


def test_a_state_of_another_key_is_refused(run, proxy, tmp_path):
    state = State(tmp_path / "state.json")
    state.tables[f"{proxy.database}.public.users"] = Progress(("tenant", "id"), (b"a", b"1"))
    state.save(at_once=True)
    status, _, err = run(state_path=state.path)
    assert status == 2
    assert "was read by tenant, id and is by id now" in err
    assert (tmp_path / "state.json").exists()


def test_the_state_survives_odd_keys(tmp_path):
    state = State(tmp_path / "state.json")
    place = (b"\xff\xfe", "ü\n\"'".encode(), b"")
    state.tables["a.b.c#d:{e}"] = Progress(("a", "b", "c"), place, 3, 2)
    state.save(at_once=True)
    assert State.load(state.path).tables == state.tables


def test_the_state_is_written_now_and_then(tmp_path):
    state = State(tmp_path / "state.json")
    state.tables["t"] = Progress(rows=1)
    state.save()
    state.tables["t"].rows = 2
    state.save()
    assert State.load(state.path).tables["t"].rows == 1
    state.save(at_once=True)
    assert State.load(state.path).tables["t"].rows == 2
    State(None).save(at_once=True)
    State(None).finish()


ENTRY = '{"order": ["a"], "place": [%s], "rows": 1, "present": 1, "done": false}'


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"tables": []}', '{"tables": {"t": {}}}', '{"tables": {"t": %s}}' % (ENTRY % "1"), b"\xff"],
)
def test_what_is_no_state_is_refused(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Misuse, match="is no state file"):
        State.load(path)


def test_a_state_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(Misuse, match="is a directory"):
        State.load(tmp_path)
    with pytest.raises(ReadFailure, match="cannot be written: no such file"):
        State(tmp_path / "nowhere" / "state.json").save(at_once=True)


def test_a_key_to_begin_at_that_is_none(run, proxy):
    status, _, err = run(from_key=["abc"])
    assert status == 1
    assert 'invalid input syntax for type integer: "abc"' in err
    assert err.count("\n") == 1


def test_how_to_go_on_is_said_when_it_breaks_off(run, proxy, connect, monkeypatch):
    connect().execute("INSERT INTO users SELECT n, 'x' FROM generate_series(501, 9000) n")
    asked = Pace.wait
    pages = iter(range(100))

    async def wait(self):
        if next(pages) == 8:
            raise ReadFailure("no more")
        await asked(self)

    monkeypatch.setattr(Pace, "wait", wait)
    monkeypatch.setattr(warm, "WINDOW", 1000)
    status, _, err = run()
    assert status == 1
    assert err.splitlines()[0] == "error: no more"
    words = err.splitlines()[1].split()
    assert words[:5] == ["to", "go", "on:", "--table", f"{proxy.database}.public.users"]
    place = json.loads(words[-1])
    assert 500 < int(place) < 9000
    monkeypatch.setattr(Pace, "wait", asked)
    _, out, _ = run(from_key=[place])
    assert out.startswith(f"{proxy.database}.public.users: {9001 - int(place)} of {9001 - int(place)} keys")


def test_what_was_late_is_read_again(run, proxy, redis_client, monkeypatch):
    """A key that is gone when it is looked for first: a write at the same time refused its fill."""
    looked = warm._Reading.look
    gone: list[int] = []

    async def look(self, leave):
        if not leave and not gone:
            gone.append(await asyncio.to_thread(redis_client.delete, "users:5", "users:6"))
        await looked(self, leave)

    monkeypatch.setattr(warm._Reading, "look", look)
    assert run()[1] == f"{proxy.database}.public.users: 500 of 500 keys present\n"
    assert gone == [2]
    assert redis_client.get("users:5") == b"name 5"


@contextlib.asynccontextmanager
async def admin(answers):
    """An admin endpoint that answers /status with these, one after the other, the last for ever; and who asked."""
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        content = answers[min(len(asked), len(answers)) - 1]
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + content if content is not None else b"HTTP/1.1 503 No\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield Address(HOST, server.sockets[0].getsockname()[1]), asked


def pending(*numbers):
    return [json.dumps({"pending_changes": number}).encode() for number in numbers]


async def test_it_waits_for_redis():
    async with admin(pending(900, 500, 101, 100, 0)) as (address, asked):
        await Pace(address, 100).wait()
        assert len(asked) == 4
        assert asked[0].startswith(b"GET /status HTTP/1.")


async def test_it_gives_up_when_nothing_moves(monkeypatch):
    monkeypatch.setattr(warm, "PATIENCE", 0.2)
    async with admin(pending(500, 400, 400)) as (address, _):
        with pytest.raises(ReadFailure, match="400 changes are pending and none has reached Redis"):
            await Pace(address, 100).wait()


async def test_slowness_is_no_standstill(monkeypatch):
    monkeypatch.setattr(warm, "PATIENCE", 0.2)
    async with admin(pending(*range(130, 99, -1))) as (address, asked):
        await Pace(address, 100).wait()
        assert len(asked) == 31


async def test_it_settles_as_far_as_other_traffic_lets_it(monkeypatch):
    async with admin(pending(3, 2, 0, 0)) as (address, asked):
        await Pace(address, 100).settle()
        assert len(asked) == 4
    monkeypatch.setattr(warm, "SETTLE", 0.2)
    async with admin(pending(3)) as (address, _):
        began = time.monotonic()
        await Pace(address, 100).settle()
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("answer", [None, b"", b"[]", b"{}", b'{"pending_changes": "many"}', b"\xff"])
async def test_an_endpoint_that_makes_no_sense_is_as_good_as_none(answer):
    async with admin([answer]) as (address, asked):
        pace = Pace(address, 100)
        assert await pace.status() is None
        await pace.wait()
        assert asked


async def test_no_endpoint():
    for address in (None, Address(HOST, free_port()), Address("", 1, "/nowhere/.s.PGSQL.1")):
        pace = Pace(address, 1)
        assert await pace.status() is None
        await pace.wait()


async def test_the_endpoint_on_a_unix_socket(tmp_path):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"pending_changes": 7}')
        writer.close()

    path = str(tmp_path / "admin")
    async with await asyncio.start_unix_server(answer, path):
        assert await Pace(Address("", 1, path), 1).status() == {"pending_changes": 7}
