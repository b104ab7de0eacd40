"""One worker: from a client's statement to Redis, other rules while it runs, how it ends, and a writer that fails."""

import asyncio
import contextlib
import time

import psycopg
import pytest
import redis.asyncio
import structlog

from cache.delivery.writer import Writer
from proxy import logs
from proxy.config.load import load
from proxy.demo.servers import HOST, free_port
from proxy.net import listeners
from proxy.process import internal_errors, worker
from proxy.process.worker import Worker
from tests.fix_postgres import fresh_database
from tests.fix_proxy import merged, toml

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
    for module in (worker, internal_errors):
        monkeypatch.setattr(module, "log", structlog.wrap_logger(None, processors=[capture]))
    monkeypatch.setattr(logs, "configure", lambda section: capture.entries.append({"configured": section}))
    return capture.entries


def at_level(logged, level):
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
        found = Running(tmp_path / "config.toml", merged(defaults, sections), client)
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


async def test_read_fills_and_write_stores_and_both_are_counted(start):
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


async def test_reloaded_rule_applies_to_open_sessions(start):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    found.reload(table=[USERS, MAILS])
    assert await filled(found, connection, 2, "mails:2") == b"mail 2"
    assert await get(found, "users:2") == b"name 2"
    assert await get(found, "users:1") is None or await get(found, "users:1") == b"name 1"


async def test_keys_of_a_removed_rule_are_removed(start):
    found = await start([USERS, MAILS])
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "mails:1") == b"mail 1"
    found.reload(table=[USERS])
    assert await get(found, "mails:1") is None
    assert await filled(found, connection, 2, "users:2") == b"name 2"
    assert await get(found, "mails:2") is None


async def test_keys_are_removed_with_the_last_rule_and_fill_again_when_it_returns(start):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    found.reload(table=[])
    assert await get(found, "users:1") is None
    await connection.execute(READ, (2,))
    assert await get(found, "users:2") is None
    found.reload(table=[USERS])
    assert await filled(found, connection, 3, "users:3") == b"name 3"


async def test_keys_of_a_changed_rule_are_removed(start):
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
async def test_reload_of_a_refused_file_changes_nothing(start, logged, sections, words):
    found = await start()
    connection = await found.connect()
    before = found.worker.config
    found.reload(**sections)
    assert found.worker.config is before
    (entry,) = at_level(logged, "error")
    assert entry["event"] == "worker refuses the new configuration"
    assert words in entry["reason"]
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"


async def test_reload_of_an_absent_file_changes_nothing(start, logged):
    found = await start()
    found.path.unlink()
    before = found.worker.config
    found.worker.reload()
    assert found.worker.config is before
    (entry,) = at_level(logged, "error")
    assert "config.toml" in entry["reason"]


async def test_reload_takes_over_max_connections(start):
    found = await start()
    first = await found.connect()
    found.reload(proxy={"listen": f"{HOST}:0", "max_connections": 1})
    with pytest.raises(psycopg.OperationalError, match="too many"):
        await found.connect()
    await first.execute("SELECT 1")


async def test_reload_takes_over_log_settings(start, logged):
    found = await start()
    found.reload(log={"level": "debug", "format": "json"})
    (section,) = [entry["configured"] for entry in logged if "configured" in entry]
    assert (section.level, section.format) == ("debug", "json")


async def test_reload_keeps_settings_that_need_a_restart_and_names_them(start, logged):
    found = await start()
    other = {"redis": {"url": f"redis://:geheim@{HOST}:1/0"}, "admin": {"listen": f"{HOST}:1"}}
    postgres = found.sections["postgres"] | {"port": free_port()}
    found.reload(postgres=postgres, cache={"statements": 100}, **other)
    (entry,) = at_level(logged, "warning")
    assert entry["keys"] == "postgres.port, redis.url, cache.statements, admin.listen"
    assert "geheim" not in repr(logged)
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1", "rows of another server would not be these tables'"
    found.worker.reload()
    _, again = at_level(logged, "warning")
    assert again["keys"] == entry["keys"], "it is still not in force"


async def test_nothing_fills_while_a_session_from_before_the_databases_rules_is_open(start, postgres, connect):
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


async def test_each_database_fills_the_keys_of_its_own_rules(start, postgres):
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


async def test_table_that_can_no_longer_be_captured_is_flushed_once(start, connect, logged):
    found = await start(postgres={"catalog_interval": "1ms"})
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"
    # Not through the proxy, so that it sees no statement of it.
    connect().execute("ALTER TABLE users DROP CONSTRAINT users_pkey")

    async def asked_again():
        before = len([entry for entry in logged if entry.get("event") == "worker learns the catalog"])
        while len([entry for entry in logged if entry.get("event") == "worker learns the catalog"]) == before:
            await connection.execute("SELECT 1")

    await asked_again()
    assert await get(found, "users:1") is None
    flushes = next(iter(found.worker.snapshot()["rules"].values()))["flushes"]
    for column in ("one", "two"):
        connect().execute(f"ALTER TABLE users ADD COLUMN {column} int")
        await asked_again()
    assert next(iter(found.worker.snapshot()["rules"].values()))["flushes"] == flushes
    (entry,) = [entry for entry in logged if entry.get("event") == "table is not captured"]
    assert entry["reason"].startswith("no unique index")
    connect().execute("ALTER TABLE users ADD PRIMARY KEY (id)")
    await asked_again()
    assert await filled(found, connection, 1, "users:1") == b"name 1"


async def test_rule_is_flushed_when_its_table_was_changed_on_another_road_and_the_other_is_not(start, connect, logged):
    connect().execute("CREATE TABLE orders (id int PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'order')")
    entry = {"name": "orders", "key": "id", "value": "name"}
    found = await start(
        postgres={"catalog_interval": "1ms"}, table=[{"name": "users", "key": "id", "value": "name"}, entry]
    )
    connection = await found.connect()
    assert await filled(found, connection, 1, "users:1") == b"name 1"
    await connection.execute("SELECT id, name FROM orders")
    assert await get(found, "orders:1") == b"order"
    connect().execute("ALTER TABLE users RENAME name TO was; ALTER TABLE users ADD COLUMN name text DEFAULT 'other'")
    while "the definition of tables has changed: their keys are removed" not in [
        entry.get("event") for entry in logged
    ]:
        await connection.execute("SELECT 1")
    assert await get(found, "users:1") is None
    assert await get(found, "orders:1") == b"order"
    assert await filled(found, connection, 1, "users:1") == b"other"


async def test_keys_an_earlier_run_left_of_a_table_that_cannot_be_captured_are_removed(start, connect):
    connect().execute("ALTER TABLE users DROP CONSTRAINT users_pkey")
    found = await start()
    await found.client.set("users:1", "left by an earlier run")
    connection = await found.connect()
    await connection.execute("SELECT 1")
    assert await get(found, "users:1") is None


async def test_stop_lets_sessions_end_and_drains_the_backlog(start, redis_url):
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


async def test_sessions_open_at_the_shutdown_timeout_get_an_error(start):
    found = await start(proxy={"listen": f"{HOST}:0", "shutdown_timeout": "100ms"})
    connection = await found.connect()
    found.worker.stop()
    await asyncio.wait_for(found.task, 10)
    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        await connection.execute("SELECT 1")


async def test_second_stop_ends_sessions_at_once(start):
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


async def test_changes_that_cannot_reach_redis_are_logged_at_the_end(start, logged, monkeypatch):
    monkeypatch.setattr(worker, "DRAIN_TIMEOUT", 0.2)
    found = await start(redis={"url": f"redis://{HOST}:{free_port()}/0"})
    connection = await found.connect()
    await connection.execute("UPDATE users SET name = 'lost' WHERE id = 1")
    await connection.close()
    found.worker.stop()
    await asyncio.wait_for(found.task, 5)
    left = [
        entry
        for entry in at_level(logged, "warning")
        if entry["event"].startswith("worker ends before all changes are in Redis")
    ]
    assert len(left) == 1
    assert left[0]["pending"] > 0


async def test_cancelled_worker_leaves_nothing_running(start):
    found = await start()
    await found.connect()
    found.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await found.task
    assert not found.worker.server._tasks
    assert found.worker.server.traffic.sessions == 0
    found.task = asyncio.get_running_loop().create_future()
    found.task.set_result(None)


class FailingWriter(Writer):
    """A writer that sends Redis nothing more after `suspend`, and whose `run` raises after `fail`."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._suspended, self._failing = asyncio.Event(), asyncio.Event()

    async def suspend(self):
        self._suspended.set()
        await asyncio.sleep(0.05)

    def fail(self):
        self._suspended.set()
        self._failing.set()

    async def run(self):
        working = asyncio.create_task(super().run())
        suspended = asyncio.create_task(self._suspended.wait())
        try:
            await asyncio.wait((working, suspended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, suspended):
                task.cancel()
            await asyncio.wait((working, suspended))
        if self._suspended.is_set():
            await self._failing.wait()
            raise RuntimeError("injected")


@pytest.fixture
def failing_writer(monkeypatch):
    monkeypatch.setattr(worker, "Writer", FailingWriter)


async def test_writer_that_fails_stops_the_worker_with_status_1_and_ends_its_sessions(failing_writer, start, logged):
    found = await start(proxy={"listen": f"{HOST}:0", "shutdown_timeout": "1h"})
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"
    found.worker.writer.fail()
    assert await asyncio.wait_for(found.task, 10) == 1
    assert found.worker.draining
    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        await connection.execute("SELECT 1")
    internal, stopping = at_level(logged, "error")
    assert (internal["event"], internal["where"], str(internal["exc_info"])) == ("internal error", "writer", "injected")
    assert internal["exc_info"].__traceback__ is not None
    assert stopping["event"] == "worker stops because its writer failed"
    assert found.worker.snapshot()["internal_errors"] == {"writer": 1}


async def test_stale_key_of_a_failed_writer_is_removed_by_the_next_start(failing_writer, start, monkeypatch):
    found = await start()
    connection = await found.connect()
    await connection.execute(READ, (1,))
    assert await get(found, "users:1") == b"name 1"
    await found.worker.writer.suspend()
    await connection.execute("UPDATE users SET name = 'unsent' WHERE id = 1")
    await found.until(lambda: found.worker.backlog.pending)
    found.worker.writer.fail()
    assert await asyncio.wait_for(found.task, 10) == 1
    assert await found.client.get("users:1") == b"name 1", "what the writer did not send"
    registered = [field for field in await found.client.hkeys("rowtap:state") if field.startswith(b"w:")]
    assert registered, "what tells the next start of it"
    monkeypatch.undo()
    again = await start()
    assert await get(again, "users:1") is None


async def test_writer_that_fails_while_draining_ends_the_drain_at_once(failing_writer, start, logged):
    found = await start(proxy={"listen": f"{HOST}:0", "shutdown_timeout": "1h"})
    connection = await found.connect()
    found.worker.stop()
    await asyncio.sleep(0.05)
    assert not found.task.done()
    found.worker.writer.fail()
    assert await asyncio.wait_for(found.task, 10) == 1
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")
    assert found.worker.snapshot()["internal_errors"] == {"writer": 1}


async def test_writer_that_is_cancelled_by_mistake_stops_the_worker_too(start, logged):
    found = await start()
    (writing,) = [task for task in asyncio.all_tasks() if task.get_name() == "writer"]
    writing.cancel()
    assert await asyncio.wait_for(found.task, 10) == 1
    assert found.worker.snapshot()["internal_errors"] == {"writer": 1}


async def test_drain_of_sessions_that_fails_is_an_internal_error_and_changes_still_reach_redis(
    start, logged, monkeypatch
):
    found = await start()
    connection = await found.connect()
    await connection.execute("UPDATE users SET name = 'last' WHERE id = 1")

    async def drain(_seconds):
        raise RuntimeError("injected")

    monkeypatch.setattr(found.worker.server, "drain", drain)
    found.worker.stop()
    assert await asyncio.wait_for(found.task, 10) == 0
    assert await found.client.get("users:1") == b"last"
    assert found.worker.snapshot()["internal_errors"] == {"worker": 1}
    (entry,) = at_level(logged, "error")
    assert str(entry["exc_info"]) == "injected"
