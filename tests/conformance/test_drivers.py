"""Common client programs and drivers, recorded directly and through the proxy: every byte must be equal."""

import asyncio
import contextlib
import os
import subprocess
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row

from proxy.demo.servers import postgres_bindir
from tests.fix_postgres import PASSWORD, ROLES
from tests.recording import Recorder

PSQL = r"""
\set ON_ERROR_STOP off
\timing off
\conninfo
SELECT name, price FROM items WHERE id = 1;
\x auto
SELECT * FROM items WHERE id < 4 \gdesc
\d items
\dt
BEGIN;
UPDATE items SET name = 'psql' WHERE id = 2 RETURNING *;
SELECT 1 / 0;
ROLLBACK;
SELECT 'one'\; SELECT 'two';
SELECT name FROM items WHERE id = $1 \bind 3 \g
SELECT $1::text, $2::int \parse named
\bind_named named 'x' 5 \g
\close_prepared named
\startpipeline
SELECT id FROM items WHERE id = $1 \bind 1 \sendpipeline
UPDATE items SET name = $1 WHERE id = 4 \bind 'pipelined' \sendpipeline
\syncpipeline
SELECT 1 / $1::int \bind 0 \sendpipeline
SELECT 'skipped' \bind \sendpipeline
\endpipeline
\set FETCH_COUNT 7
SELECT id, name FROM items ORDER BY id;
\unset FETCH_COUNT
COPY plain FROM STDIN;
1	one
2	\N
\.
\copy plain to pstdout
LISTEN news;
NOTIFY news, 'from psql';
DO $$BEGIN RAISE NOTICE 'noticed'; END$$;
SELECT * FROM nowhere;
\encoding LATIN1
SELECT 'é';
\c -
SELECT count(*) FROM plain;
"""


@pytest.fixture
def recorded(addresses, refill):
    """`recorded(play)`: `play(host, port)` through a recorder, directly and through the proxy; results and bytes are
    compared.

    Returns the direct result and its recorded sessions.
    """

    def compare(play, *, refilled=True):
        outcomes: list[Any] = []
        for address in addresses:
            if refilled or not outcomes:
                refill()
            with Recorder(*address) as recorder:
                result = play(recorder.host, recorder.port)
                outcomes.append((result, recorder.sessions()))
        (direct, direct_sessions), (proxied, proxied_sessions) = outcomes
        assert proxied == direct
        assert len(proxied_sessions) == len(direct_sessions)
        for one, other in zip(proxied_sessions, direct_sessions, strict=True):
            assert one.frontend == other.frontend
            assert one.backend == other.backend
        return direct, direct_sessions

    return compare


def program(name, *arguments, text=None, host, port, database):
    """Run one of PostgreSQL's programs until it ends: (exit status, output, errors)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {
        "PGHOST": host,
        "PGPORT": str(port),
        "PGUSER": "postgres",
        "PGDATABASE": database,
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [postgres_bindir() / name, *arguments],
        input=text,
        env=environment | {"PGSSLMODE": "disable", "PGGSSENCMODE": "disable", "TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    port_words = (str(port), "PORT")
    return done.returncode, done.stdout.replace(*port_words), done.stderr.replace(*port_words)


def test_psql_sends_and_receives_the_same_bytes(recorded, conformance_database):
    def play(host, port):
        status, output, errors = program(
            "psql", "-X", "-a", text=PSQL, host=host, port=port, database=conformance_database
        )
        # The process IDs in a notification and in \\conninfo differ from session to session.
        lines = [line for line in output.splitlines() if "PID" not in line]
        return status, lines, errors

    (status, output, errors), sessions = recorded(play)
    assert status == 0
    assert "division by zero" in errors
    assert any("pipelined" in line for session in sessions for line in session.frontend)
    assert len(sessions) == 2
    assert " psql  | " not in output


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench_sends_and_receives_the_same_bytes(recorded, conformance_database, protocol):
    def play(host, port):
        there = {"host": host, "port": port, "database": conformance_database}
        made = program("pgbench", "-i", "-I", "dtGp", "-q", "-s", "1", **there)
        played = program("pgbench", "-n", "-t", "20", "-M", protocol, "--random-seed=4711", **there)
        cleaned = program("pgbench", "-i", "-I", "d", **there)
        return made[0], played[0], cleaned[0]

    statuses, _ = recorded(play)
    assert statuses == (0, 0, 0)


def test_pg_dump_sends_and_receives_the_same_bytes(recorded, conformance_database):
    def play(host, port):
        status, dump, errors = program("pg_dump", host=host, port=port, database=conformance_database)
        # Each dump has a random key in its \\restrict lines.
        return status, [line for line in dump.splitlines() if "restrict" not in line], errors

    # Filling the tables again would change the catalog that pg_dump reads.
    (status, dump, errors), _ = recorded(play, refilled=False)
    assert (status, errors) == (0, "")
    assert "COPY public.items (id, name, price, data, tags) FROM stdin;" in dump


@pytest.mark.parametrize("how", [["--inserts"], ["--rows-per-insert=3"], []], ids=str)
def test_restore_of_a_dump_sends_and_receives_the_same_bytes(recorded, postgres, conformance_database, refill, how):
    refill()
    there = {"host": postgres.host, "port": postgres.port, "database": conformance_database}
    status, dump, _ = program("pg_dump", "--data-only", "--table=items", *how, **there)
    assert status == 0

    def play(host, port):
        return program(
            "psql",
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            text=f"TRUNCATE items;\n{dump}",
            host=host,
            port=port,
            database=conformance_database,
        )

    (status, _, errors), _ = recorded(play)
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("user", sorted(ROLES))
def test_password_authentication_has_the_same_result(recorded, conformance_database, user):
    def play(host, port):
        answers: list[object] = []
        for password in (PASSWORD, "wrong"):
            try:
                with psycopg.connect(
                    host=host, port=port, user=user, dbname=conformance_database, password=password, sslmode="disable"
                ) as connection:
                    answers.append(connection.execute("SELECT current_user").fetchone())
            except psycopg.OperationalError as error:
                answers.append(str(error).rpartition("FATAL:")[2])
        return answers

    (right, wrong), _ = recorded(play)
    assert right == (user,)
    assert "authentication failed" in wrong


def psycopg_connection(host, port, database, **parameters):
    return psycopg.connect(host=host, port=port, user="postgres", dbname=database, sslmode="prefer", **parameters)


def simple(connection):
    connection.cursor_factory = psycopg.ClientCursor
    yield connection.execute("SELECT name, data FROM items WHERE id = %s AND name = %s", (1, "item 1")).fetchall()
    connection.execute("UPDATE items SET name = %s WHERE id = %s", ("it's \\ new", 2))
    yield connection.execute("SELECT name FROM items WHERE id = 2; SELECT 2").fetchall()


def extended(connection):
    with connection.transaction():
        connection.execute("UPDATE items SET name = %s, tags = %s WHERE id = %s", ("ext", ["x", None], 3))
    with contextlib.suppress(psycopg.errors.DivisionByZero), connection.transaction():
        connection.execute("UPDATE items SET name = %s WHERE id = %s", ("lost", 4))
        with connection.transaction():
            connection.execute("SELECT 1 / %s", (0,))
    yield connection.execute("SELECT * FROM items WHERE id IN (3, 4) ORDER BY id").fetchall()
    yield connection.cursor(row_factory=dict_row).execute("SELECT NULL AS nothing, %s AS some", ("é",)).fetchall()


def prepared(connection):
    connection.prepare_threshold = 2
    for number in range(1, 8):
        yield connection.execute("SELECT name FROM items WHERE id = %s", (number,)).fetchall()
    for number in range(3):
        connection.execute("UPDATE items SET name = %s WHERE id = %s", (f"n{number}", number), prepare=True)
    connection.execute("DEALLOCATE ALL")
    yield connection.execute("SELECT name FROM items WHERE id = %s", (1,), prepare=True).fetchall()


def binary(connection):
    cursor = connection.cursor(binary=True)
    yield cursor.execute("SELECT * FROM items WHERE id = %b", (5,)).fetchall()
    yield cursor.execute("SELECT %b::bytea, %t::numeric", (b"\0\xff", 4)).fetchall()


def pipelined(connection):
    with connection.pipeline() as pipeline:
        cursors = [connection.execute("SELECT name FROM items WHERE id = %s", (number,)) for number in range(1, 6)]
        connection.execute("UPDATE items SET name = 'p' WHERE id = 9")
        pipeline.sync()
        yield [cursor.fetchall() for cursor in cursors]
    with contextlib.suppress(psycopg.errors.UndefinedTable), connection.pipeline():
        connection.execute("UPDATE items SET name = 'lost' WHERE id = 9")
        connection.execute("SELECT * FROM nowhere")
        connection.execute("SELECT 1")
    connection.rollback()
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE items SET name = %s WHERE id = %s RETURNING name", [("m1", 1), ("m2", 2)], returning=True
        )
        yield cursor.fetchall()
    yield connection.execute("SELECT name FROM items WHERE id = 9").fetchall()


def copying(connection):
    with connection.cursor().copy("COPY plain FROM STDIN") as copy:
        for number in range(500):
            copy.write_row((number, f"row {number}"))
    with connection.cursor().copy("COPY plain TO STDOUT (FORMAT binary)") as copy:
        yield b"".join(bytes(block) for block in copy)
    with contextlib.suppress(psycopg.errors.QueryCanceled), connection.cursor().copy("COPY plain FROM STDIN") as copy:
        copy.write("1\tx\n")
        raise psycopg.errors.QueryCanceled
    connection.rollback()


def cursors(connection):
    with connection.cursor(name="server side") as cursor:
        cursor.itersize = 6
        yield list(cursor.execute("SELECT id, name FROM items ORDER BY id"))
    yield from connection.cursor().stream("SELECT id FROM items ORDER BY id", size=3)


def events(connection):
    connection.autocommit = True
    connection.execute("LISTEN a")
    connection.execute("NOTIFY a, 'b'")
    yield [(notify.channel, notify.payload) for notify in connection.notifies(timeout=5, stop_after=1)]
    yield connection.execute("SELECT shout(name) FROM items WHERE id = 1").fetchall()


def two_phase(connection):
    connection.tpc_begin(connection.xid(1, "gtrid", "bqual"))
    connection.execute("UPDATE items SET name = 'two' WHERE id = 1")
    connection.tpc_prepare()
    connection.tpc_commit()
    yield [xid.gtrid for xid in connection.tpc_recover()]
    yield connection.execute("SELECT name FROM items WHERE id = 1").fetchall()


@pytest.mark.parametrize(
    "play",
    [simple, extended, prepared, binary, pipelined, copying, cursors, events, two_phase],
    ids=lambda f: f.__name__,
)
def test_psycopg_sends_and_receives_the_same_bytes(recorded, conformance_database, play):
    def connected(host, port):
        with psycopg_connection(host, port, conformance_database) as connection:
            return list(play(connection))

    result, sessions = recorded(connected)
    assert result
    assert sessions[0].frontend[-1].startswith("X")


async def asyncpg_session(host, port, database):
    connection = await asyncpg.connect(host=host, port=port, user="postgres", database=database)
    results = []
    try:
        results.append(await connection.fetch("SELECT * FROM items WHERE id = $1", 1))
        results.append(await connection.fetch("SELECT name FROM items WHERE id = ANY($1) ORDER BY id", [1, 2, 3]))
        results.append(await connection.fetchval("SELECT $1::mood", "calm"))
        statement = await connection.prepare("SELECT name FROM items WHERE id = $1")
        results += [await statement.fetchval(number) for number in (4, 5, 6)]
        results += [str(statement.get_attributes()), str(statement.get_parameters())]
        async with connection.transaction(isolation="repeatable_read"):
            results += [row async for row in connection.cursor("SELECT id FROM items ORDER BY id", prefetch=3)]
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                await connection.execute("UPDATE items SET name = $1 WHERE id = $2", "lost", 7)
                async with connection.transaction():
                    await connection.execute("SELECT 1 / $1::int", 0)
        await connection.executemany(
            "UPDATE items SET name = $2 WHERE id = $1", [(n, f"many {n}") for n in range(1, 30)]
        )
        with pytest.raises(asyncpg.NotNullViolationError):
            await connection.executemany("INSERT INTO items (id) VALUES ($1)", [(100,), (None,)])
        results.append(await connection.copy_records_to_table("plain", records=[(n, str(n)) for n in range(300)]))
        results.append(await connection.execute("SELECT 1; UPDATE items SET name = 'simple' WHERE id = 8; SELECT 2"))
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await connection.execute("SELECT 1; SELEC 2")
        heard: asyncio.Queue[str] = asyncio.Queue()
        await connection.add_listener("news", lambda *event: heard.put_nowait(event[-1]))
        await connection.execute("NOTIFY news, 'told'")
        results.append(await heard.get())
        await connection.remove_listener("news", heard.put_nowait)
        results.append(await connection.fetch("SELECT name FROM items ORDER BY id"))
        await connection.reset()
    finally:
        await connection.close()
    return [str(result) for result in results]


def test_asyncpg_sends_and_receives_the_same_bytes(recorded, conformance_database):
    results, sessions = recorded(lambda host, port: asyncio.run(asyncpg_session(host, port, conformance_database)))
    assert "many 9" in results[-1]
    assert len(sessions) == 1


def test_pg8000_sends_and_receives_the_same_bytes(recorded, conformance_database):
    dbapi = pytest.importorskip("pg8000.dbapi")

    def play(host, port):
        connection = dbapi.connect(user="postgres", host=host, port=port, database=conformance_database)
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT id, name, data, tags FROM items WHERE id < %s ORDER BY id", (4,))
            results = [*cursor.fetchall()]
            cursor.executemany("UPDATE items SET name = %s WHERE id = %s", [("a", 1), ("b", 2)])
            connection.commit()
            cursor.execute("UPDATE items SET name = 'lost' WHERE id = 3")
            with pytest.raises(dbapi.DatabaseError):
                cursor.execute("SELECT * FROM nowhere")
            connection.rollback()
            cursor.execute("SELECT name FROM items WHERE id < 4 ORDER BY id")
            return [*results, *cursor.fetchall()]
        finally:
            connection.close()

    results, _ = recorded(play)
    assert [list(row) for row in results[-3:]] == [["a"], ["b"], ["item 3"]]


def sqlalchemy_work():
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")

    item_class: Any = type("Item", (), {})
    columns = sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True), sqlalchemy.Column("name", sqlalchemy.Text)
    orm.registry().map_imperatively(item_class, sqlalchemy.Table("items", sqlalchemy.MetaData(), *columns))

    def work(session):
        session.get(item_class, 1).name = "changed"
        for number in range(101, 104):
            item = item_class()
            item.id, item.name = number, f"added {number}"
            session.add(item)
        session.commit()
        session.delete(session.get(item_class, 2))
        with session.begin_nested() as nested:
            session.get(item_class, 3).name = "lost"
            session.flush()
            nested.rollback()
        session.execute(
            sqlalchemy.update(item_class).where(item_class.id.in_([4, 5])).values(name=item_class.name + "!")
        )
        locked = session.scalars(sqlalchemy.select(item_class).where(item_class.id == 6).with_for_update()).one()
        session.commit()
        names = sqlalchemy.select(item_class.id, item_class.name).order_by(item_class.id)
        return [locked.id, *(tuple(row) for row in session.execute(names))]

    return work


def test_sqlalchemy_with_psycopg_sends_and_receives_the_same_bytes(recorded, conformance_database):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")

    def play(host, port):
        engine = sqlalchemy.create_engine(f"postgresql+psycopg://postgres@{host}:{port}/{conformance_database}")
        try:
            with orm.Session(engine) as session:
                return sqlalchemy_work()(session)
        finally:
            engine.dispose()

    results, _ = recorded(play)
    assert (1, "changed") in results
    assert (4, "item 4!") in results


def test_sqlalchemy_with_asyncpg_sends_and_receives_the_same_bytes(recorded, conformance_database):
    pytest.importorskip("greenlet")
    asyncio_orm = pytest.importorskip("sqlalchemy.ext.asyncio")

    async def session(host, port):
        engine = asyncio_orm.create_async_engine(f"postgresql+asyncpg://postgres@{host}:{port}/{conformance_database}")
        try:
            async with asyncio_orm.AsyncSession(engine) as session:
                return await session.run_sync(sqlalchemy_work())
        finally:
            await engine.dispose()

    results, _ = recorded(lambda host, port: asyncio.run(session(host, port)))
    assert (103, "added 103") in results
