"""A RowDescription sent before names came to mean something else does not speak for the rows that come after it."""

import asyncio

import asyncpg
import pytest

from protocol import frontend
from tests.e2e.deployment import deploy

pytestmark = pytest.mark.measured

SCHEMA = """
    CREATE TABLE users (id int PRIMARY KEY, name text);
    CREATE SCHEMA acme;
    CREATE TABLE acme.users (id int PRIMARY KEY, name text);
"""
CONTENT = """
    DELETE FROM users; DELETE FROM acme.users;
    INSERT INTO users VALUES (1, 'public one'), (2, 'public two');
    INSERT INTO acme.users VALUES (1, 'acme one'), (2, 'acme two');
"""
RULES = [{"name": "users", "key": "id", "value": "name"}]
SELECT = "SELECT id, name FROM users WHERE id = $1"
FILL_UNSEEN = (
    "DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE us'||'ers (id int PRIMARY KEY, name text)';"
    " EXECUTE 'INSERT INTO pg_temp.us'||'ers VALUES (1, ''EVIL'')'; END $$"
)


@pytest.fixture(scope="module", params=["postgres", "postgres15"])
def running(request, valkey, tmp_path_factory):
    """PostgreSQL reports search_path from version 18 on: before, a plan cannot say which schema's table is meant."""
    postgres = request.getfixturevalue(request.param)
    directory = tmp_path_factory.mktemp("meaning")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        found.direct.simple("CREATE ROLE acme; GRANT acme TO postgres")
        found.direct.simple("GRANT USAGE ON SCHEMA acme TO acme; GRANT SELECT ON users, acme.users TO acme")
        try:
            yield found
        finally:
            found.direct.simple("DROP OWNED BY acme; DROP ROLE acme")


@pytest.fixture
def deployment(running):
    running.reset(warm=False)
    return running


def run(session, *statements):
    for sql in statements:
        answer = session.simple(sql)
        assert not answer.errors, (sql, answer)


def prepare(session, sql=SELECT, name=b"s"):
    """Parse and Describe of a statement, as asyncpg sends them once."""
    session.send(frontend.Parse(name, sql.encode()), frontend.Describe(ord("S"), name), frontend.Sync())
    assert not session.answer().errors


def execute(session, *parameters, name=b"s"):
    """Bind and Execute only: no RowDescription comes."""
    session.send(frontend.Bind(b"", name, (), list(parameters), ()), frontend.Execute(b"", 0), frontend.Sync())
    answer = session.answer()
    assert not answer.errors, answer
    return answer.rows


def held(deployment):
    deployment.settle()
    return {key.decode(): value for key, value in deployment.held().items()}


def test_rows_fill_by_the_description_of_a_prepared_statement_while_names_mean_the_same(deployment):
    session = deployment.connect()
    prepare(session)
    execute(session, b"1")
    run(session, "RESET ALL", "SET extra_float_digits = 2", "SELECT pg_notify('a', 'b')")
    execute(session, b"2")
    assert len(held(deployment)) == 2


CHANGES = {
    "search_path": ("SET search_path = acme", "SET search_path = public"),
    "set_config": ("SELECT set_config('search_path', 'acme', false)", "RESET search_path"),
    "schema": ("SET SCHEMA 'acme'", "SET SCHEMA 'public'"),
    "set local": ("BEGIN; SET LOCAL search_path = acme", "COMMIT"),
    "rolled back": ("BEGIN; SET search_path = acme", "ROLLBACK"),
    "savepoint": ("BEGIN; SAVEPOINT a; SET search_path = acme", "ROLLBACK TO a; COMMIT"),
    "role": ("SET ROLE acme", "RESET ROLE"),
    "role for the transaction": ("BEGIN; SET LOCAL ROLE acme", "COMMIT"),
    "session authorization": ("SET SESSION AUTHORIZATION acme", "RESET SESSION AUTHORIZATION"),
    "do": (FILL_UNSEEN, "DROP TABLE pg_temp.users"),
    "do rolled back": ("BEGIN; " + FILL_UNSEEN, "ROLLBACK"),
    "failed do": (FILL_UNSEEN.replace("END $$", "COMMIT; RAISE 'failed'; END $$"), "DISCARD TEMP"),
    "temporary": ("CREATE TEMP TABLE users AS SELECT 1 AS id, 'EVIL'::text AS name", "DISCARD TEMP"),
    "renamed": ("CREATE TEMP TABLE t AS SELECT 1 AS id, 'EVIL'::text AS name; ALTER TABLE t RENAME TO users", "SELECT"),
    "on commit drop": ("BEGIN; CREATE TEMP TABLE users ON COMMIT DROP AS SELECT 1 AS id, 'EVIL'::text AS name", "END"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_row_of_another_table_does_not_fill_after_names_have_changed(deployment, change):
    session = deployment.connect()
    prepare(session)
    there, back = CHANGES[change]
    assert execute(session, b"1")[0][1] == b"public one"
    deployment.settle()
    deployment.redis.delete("users:1")
    session.simple(there)
    assert execute(session, b"1")[0][1] in (b"acme one", b"EVIL", b"public one")
    assert held(deployment) == {}
    # And the other way: described there, run here.
    prepare(session, name=b"t")
    execute(session, b"1", name=b"t")
    session.simple(back)
    execute(session, b"1", name=b"t")
    deployment.settle_and_check()


def test_row_of_another_table_does_not_fill_where_everything_is_pipelined(deployment):
    session = deployment.connect()
    prepare(session)
    session.send(
        frontend.Parse(b"", b"SET search_path = acme"),
        frontend.Bind(b"", b"", (), [], ()),
        frontend.Execute(b"", 0),
        frontend.Bind(b"", b"s", (), [b"1"], ()),
        frontend.Execute(b"", 0),
        frontend.Sync(),
    )
    assert [row[1] for row in session.answer().rows] == [b"acme one"]
    assert held(deployment) == {}


def test_rows_that_do_not_fill_are_counted_under_their_reason(deployment):
    session = deployment.connect()
    prepare(session)
    run(session, "SET search_path = public")
    execute(session, b"1")
    deployment.settle()
    assert 'reason="description out of date"' in deployment.proxy.get("/metrics")[1]


def test_row_of_a_cursor_declared_anew_does_not_fill_by_the_former_description(deployment):
    session = deployment.connect()
    run(session, "BEGIN", "DECLARE c CURSOR FOR SELECT id, name FROM users")
    prepare(session, "FETCH 1 FROM c")
    assert [row[1] for row in execute(session)] == [b"public one"]
    run(
        session, "CLOSE c", "DECLARE c CURSOR FOR SELECT u.id, v.name FROM users u, users v WHERE u.id = 1 AND v.id = 2"
    )
    execute(session)
    run(session, "COMMIT")
    deployment.settle_and_check()


def test_row_of_a_statement_prepared_anew_does_not_fill_by_the_former_description(deployment):
    session = deployment.connect()
    run(session, "PREPARE p AS SELECT id, name FROM users WHERE id = 1")
    prepare(session, "EXECUTE p")
    execute(session)
    assert len(held(deployment)) == 1
    run(session, "DEALLOCATE p", "PREPARE p AS SELECT 1 AS id, name FROM acme.users WHERE id = 2")
    assert [row[1] for row in execute(session)] == [b"acme two"]
    run(session, "DEALLOCATE p", "PREPARE p AS SELECT id, name FROM users WHERE id = 2", "SET search_path = acme")
    execute(session)
    deployment.settle_and_check()


def test_rows_do_not_fill_by_a_statement_that_unseen_code_has_replaced(deployment):
    session = deployment.connect()
    run(session, "PREPARE p AS SELECT name FROM users WHERE id = 1")
    run(
        session,
        "DO $$ BEGIN EXECUTE 'DEALLOCATE p'; EXECUTE 'PREPARE p AS SELECT name FROM users WHERE id = 2'; END $$",
    )
    run(session, "EXECUTE p")
    deployment.settle_and_check()


def test_asyncpg_does_not_fill_a_row_of_another_schema(deployment):
    async def talk():
        connection = await asyncpg.connect(deployment.proxy.url())
        try:
            assert await connection.fetchval(SELECT, 2, column=1) == "public two"
            assert await connection.fetchval(SELECT, 2, column=1) == "public two"
            await connection.execute("SET search_path = acme")
            assert await connection.fetchval(SELECT, 1, column=1) == "acme one"
            assert await connection.fetchval(SELECT, 1, column=1) == "acme one"
        finally:
            await connection.close()

    asyncio.run(talk())
    deployment.settle_and_check()
    assert len(held(deployment)) == 1


def test_write_after_set_local_has_ended_reaches_the_table_that_is_meant_again(deployment):
    deployment.reset(warm=True)
    session = deployment.connect()
    run(session, "BEGIN; SET LOCAL search_path = acme", "COMMIT; UPDATE users SET name = 'new' WHERE id = 1")
    run(session, "BEGIN; SAVEPOINT a; SET search_path = acme")
    run(session, "ROLLBACK TO a; UPDATE users SET name = 'new' WHERE id = 2; COMMIT")
    deployment.settle_and_check()
