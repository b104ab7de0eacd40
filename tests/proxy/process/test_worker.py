"""One worker put together: from a client's statement to Redis, other rules while it runs, and how it ends."""

import asyncio
import contextlib
import time

import psycopg
import pytest
import redis.asyncio
import structlog

from cache.capture import database
from proxy import logs
from proxy.config.load import load
from proxy.demo.servers import HOST, free_port
from proxy.net import listeners
from proxy.process import worker
from proxy.process.worker import Worker
from tests.fix_postgres import fresh_database
from tests.fix_proxy import toml

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
MAILS = USERS | {"value": "mail", "redis_key": "mails:{id}"}
TABLE = "CREATE TABLE users (id int PRIMARY KEY, name text, mail text)"
ROWS = "INSERT INTO users SELECT n, 'name ' || n, 'mail ' || n FROM generate_series(1, 9) n"
READ = "SELECT id, name, mail FROM users WHERE id = %s"


class Running:
    """A worker and the file it was configured by."""

    def __init__(self, path, sections, client):
        self.path, self.sections, self.client = path, sections, client
        self.write()
        self.config = load(path, None, {})
        self.listeners = listeners.listen(self.config.proxy.listen)
        self.worker = Worker(self.config, self.listeners)
        self.task = asyncio.create_task(self.worker.run())
        self.connections: list[psycopg.AsyncConnection] = []

    def write(self, **sections):
        self.sections = self.sections | sections
        self.path.write_text(toml(self.sections))

    def reload(self, **sections):
        self.write(**sections)
        self.worker.reload()

    async def connect(self, dbname=None):
        port = self.listeners[0].getsockname()[1]
        name = dbname or self.sections["postgres"]["database"]
        dsn = f"host={HOST} port={port} user=postgres dbname={name}"
        found = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        self.connections.append(found)
        return found

    async def settle(self, seconds=10.0):
        deadline = time.monotonic() + seconds
        zeros = 0
        while zeros < 2:
            assert time.monotonic() < deadline, self.worker.snapshot()
            zeros = zeros + 1 if self.worker.snapshot()["pending"] == 0 else 0
            await asyncio.sleep(0.01)

    async def until(self, condition, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def end(self):
        for connection in self.connections:
            await connection.close()
        self.worker.stop()
        await asyncio.wait_for(self.task, 20)
        listeners.close(self.listeners)


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """What the worker logs, as dictionaries; how the process logs stays as it is."""
    capture = structlog.testing.LogCapture()
    monkeypatch.setattr(worker, "log", structlog.wrap_logger(None, processors=[capture]))
    monkeypatch.setattr(logs, "configure", lambda section: capture.entries.append({"configured": section}))
    return capture.entries


def said(logged, level):
    return [entry for entry in logged if entry.get("log_level") == level]


@pytest.fixture
async def start(tmp_path, postgres, database, redis_url, connect):
    """`await start([table, …], section={…})`: a worker in front of `postgres`, with a client in `database`."""
    connect().execute(TABLE)
    connect().execute(ROWS)
    running = []

    async def make(tables=(USERS,), **sections):
        client = redis.asyncio.Redis.from_url(redis_url)
        defaults = {
            "proxy": {"listen": f"{HOST}:0", "shutdown_timeout": "5s"},
            "postgres": {"host": HOST, "port": postgres.port, "database": database},
            "redis": {"url": redis_url},
            "admin": {"listen": "off"},
            "table": list(tables),
        }
        found = Running(tmp_path / "config.toml", defaults | sections, client)
        running.append(found)
        await found.until(lambda: found.worker.writer.connected or "redis" in sections)
        await found.settle()
        return found

    yield make
    for one in running:
        await one.end()
        await one.client.aclose()


async def filled(found, connection, number, key):
    """Read until the key is there: the first reads may go by while the catalog is asked for again."""
    for _ in range(100):
        await connection.execute(READ, (number,))
        if (value := await get(found, key)) is not None:
            return value
    return None


async def get(found, key):
    await found.settle()
    return await found.client.get(key)


async def test_from_a_statement_to_redis(start):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"
    await connection.execute("UPDATE users SET name = 'Ada' WHERE id = 1")
    assert await get(found, "users:1") == b"Ada"
    snapshot = found.worker.snapshot()
    assert (snapshot["worker"], snapshot["postgres_up"], snapshot["redis_up"]) == (0, True, True)
    assert snapshot["sockets"]["sessions"] == 1
    (rule,) = snapshot["rules"].values()
    assert (rule["fills"], rule["stores"]) == (1, 1)


async def test_another_rule_for_the_same_sessions(start):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    found.reload(table=[USERS, MAILS])
    assert await filled(found, connection, 2, "mails:2") == b"mail 2"
    assert await get(found, "users:2") == b"name 2"
    assert await get(found, "users:1") is None or await get(found, "users:1") == b"name 1"


async def test_a_rule_that_is_gone_takes_its_keys_along(start):
    found = await start([USERS, MAILS])
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "mails:1") == b"mail 1"
    found.reload(table=[USERS])
    assert await get(found, "mails:1") is None
    assert await filled(found, connection, 2, "users:2") == b"name 2"
    assert await get(found, "mails:2") is None


async def test_no_rule_any_more(start):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    found.reload(table=[])
    assert await get(found, "users:1") is None
    await connection.execute(READ, (2,))
    assert await get(found, "users:2") is None
    found.reload(table=[USERS])
    assert await filled(found, connection, 3, "users:3") == b"name 3"


async def test_a_rule_with_another_meaning_begins_with_no_keys(start):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"
    found.reload(table=[USERS | {"value": "mail"}])
    assert await get(found, "users:1") is None
    await connection.execute("SELECT 1")
    await connection.execute(READ, (2,))
    # A write forwarded under the old rule may be under way: fills are refused for a while, never wrong.
    assert await get(found, "users:2") in (None, b"mail 2")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"table": [USERS | {"valu": "x"}]}, "no such key"),
        ({"proxy": {"listen": "127.0.0.1:0", "tls": {"cert": "absent.crt", "key": "absent.key"}}}, "absent.crt"),
        ({"log": {"level": "loud"}}, "log.level"),
    ],
)
async def test_a_file_that_is_refused_changes_nothing(start, logged, sections, words):
    found = await start()
    connection = await found.connect()
    before = found.worker.config
    found.reload(**sections)
    assert found.worker.config is before
    (entry,) = said(logged, "error")
    assert entry["event"] == "configuration not reloaded"
    assert words in entry["reason"]
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"


async def test_a_file_that_is_gone_changes_nothing(start, logged):
    found = await start()
    found.path.unlink()
    before = found.worker.config
    found.worker.reload()
    assert found.worker.config is before
    (entry,) = said(logged, "error")
    assert "config.toml" in entry["reason"]


async def test_limits_are_reloaded(start):
    found = await start()
    first = await found.connect()
    found.reload(proxy={"listen": f"{HOST}:0", "max_connections": 1})
    with pytest.raises(psycopg.OperationalError, match="too many"):
        await found.connect()
    await first.execute("SELECT 1")


async def test_log_settings_are_reloaded(start, logged):
    found = await start()
    found.reload(log={"level": "debug", "format": "json"})
    (section,) = [entry["configured"] for entry in logged if "configured" in entry]
    assert (section.level, section.format) == ("debug", "json")


async def test_what_a_reload_leaves_to_a_restart_is_said(start, logged):
    found = await start()
    other = {"redis": {"url": f"redis://:geheim@{HOST}:1/0"}, "admin": {"listen": f"{HOST}:1"}}
    postgres = found.sections["postgres"] | {"port": free_port()}
    found.reload(postgres=postgres, cache={"statements": 100}, **other)
    (entry,) = said(logged, "warning")
    assert entry["keys"] == "postgres.port, redis.url, cache.statements, admin.listen"
    assert "geheim" not in repr(logged)
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1", "rows of another server would not be these tables'"
    found.worker.reload()
    _, again = said(logged, "warning")
    assert again["keys"] == entry["keys"], "it is still not in force"


async def test_sessions_that_began_before_their_databases_rules(start, postgres, connect):
    found = await start([])
    before = await found.connect()
    found.reload(table=[USERS])
    after = await found.connect()
    await after.execute(READ, (1,))
    assert await get(found, "users:1") is None, "the other session's writes are not seen"
    await before.execute("UPDATE users SET name = 'unseen' WHERE id = 1")
    await before.close()
    await found.until(lambda: not found.worker._unobserved)
    assert await filled(found, after, 1, "users:1") == b"unseen"


async def test_fill_is_not_held_up_by_sessions_on_databases_without_rules(start, postgres):
    found = await start()
    with fresh_database(postgres) as other:
        stranger = await found.connect(other)
        connection = await found.connect()
        await connection.execute(READ, (1,))
        assert await get(found, "users:1") == b"name 1"
        await stranger.close()


async def test_two_databases(start, postgres):
    with fresh_database(postgres) as other:
        with psycopg.connect(postgres.dsn(other), autocommit=True) as direct:
            direct.execute(TABLE)
            direct.execute("INSERT INTO users VALUES (1, 'there')")
        found = await start([USERS, USERS | {"database": other, "redis_key": "there:{id}"}])
        for name in (None, other):
            connection = await found.connect(name)
            await connection.execute(READ, (1,))
        assert await get(found, "users:1") == b"name 1"
        assert await get(found, "there:1") == b"there"
        for connection in found.connections:
            await connection.close()
        found.connections.clear()


async def test_a_table_that_can_no_longer_be_captured_loses_its_keys_once(start, connect, logged, monkeypatch):
    monkeypatch.setattr(database, "MAX_AGE_NS", 0)
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"
    # On another road, so that no statement tells the proxy.
    connect().execute("ALTER TABLE users DROP CONSTRAINT users_pkey")

    async def asked_again():
        before = len([entry for entry in logged if entry.get("event") == "catalog learned"])
        while len([entry for entry in logged if entry.get("event") == "catalog learned"]) == before:
            await connection.execute("SELECT 1")

    await asked_again()
    assert await get(found, "users:1") is None
    flushes = next(iter(found.worker.snapshot()["rules"].values()))["flushes"]
    await asked_again()
    await asked_again()
    assert next(iter(found.worker.snapshot()["rules"].values()))["flushes"] == flushes
    (entry,) = [entry for entry in logged if entry.get("event") == "table is not captured"]
    assert entry["reason"].startswith("no unique index")
    connect().execute("ALTER TABLE users ADD PRIMARY KEY (id)")
    await asked_again()
    assert await filled(found, connection, 1, "users:1") == b"name 1"


async def test_what_an_earlier_run_left_of_a_table_that_cannot_be_captured_is_removed(start, connect):
    connect().execute("ALTER TABLE users DROP CONSTRAINT users_pkey")
    found = await start()
    await found.client.set("users:1", "left by an earlier run")
    connection = await found.connect()
    await connection.execute("SELECT 1")
    assert await get(found, "users:1") is None


async def test_the_end(start, redis_url):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    found.worker.stop()
    assert found.worker.draining
    with pytest.raises((psycopg.OperationalError, TimeoutError)):
        await asyncio.wait_for(found.connect(), 0.5)
    await connection.execute("UPDATE users SET name = 'last' WHERE id = 1")
    assert not found.task.done(), "sessions may end by themselves"
    await connection.close()
    await asyncio.wait_for(found.task, 5)
    assert await found.client.get("users:1") == b"last"
    assert [field for field in await found.client.hkeys("rowtap:state") if field.startswith((b"w:", b"l:"))] == []


async def test_sessions_are_ended_at_the_deadline(start):
    found = await start(proxy={"listen": f"{HOST}:0", "shutdown_timeout": "100ms"})
    connection = await found.connect()
    found.worker.stop()
    await asyncio.wait_for(found.task, 10)
    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        await connection.execute("SELECT 1")


async def test_told_twice_it_ends_at_once(start):
    found = await start(proxy={"listen": f"{HOST}:0", "shutdown_timeout": "1h"})
    connection = await found.connect()
    await connection.execute(READ, (1,))
    found.worker.stop()
    await asyncio.sleep(0.05)
    assert not found.task.done()
    found.worker.stop()
    await asyncio.wait_for(found.task, 5)
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")
    assert await found.client.get("users:1") == b"name 1"


async def test_changes_that_cannot_reach_redis_are_left_behind(start, logged, monkeypatch):
    monkeypatch.setattr(worker, "DRAIN_TIMEOUT", 0.2)
    found = await start(redis={"url": f"redis://{HOST}:{free_port()}/0"})
    connection = await found.connect()
    await connection.execute("UPDATE users SET name = 'lost' WHERE id = 1")
    await connection.close()
    found.worker.stop()
    await asyncio.wait_for(found.task, 5)
    left = [entry for entry in said(logged, "warning") if entry["event"].startswith("changes were left behind")]
    assert len(left) == 1
    assert left[0]["left"] > 0


async def test_cancelled_it_leaves_nothing_running(start):
    found = await start()
    await found.connect()
    found.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await found.task
    assert not found.worker.server._tasks
    assert found.worker.server.traffic.sessions == 0
    found.task = asyncio.get_running_loop().create_future()
    found.task.set_result(None)
