"""DDL while running, and names that mean different tables to different sessions."""

from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from protocol import frontend
from proxy.demo.servers import HOST, free_port
from tests.e2e import deployment as scene
from tests.e2e.statement_client import Speaker
from tests.fix_postgres import fresh_database
from tests.fix_proxy import Proxy

SCHEMA = """
    CREATE TABLE users (id int PRIMARY KEY, name text, age int);
    CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE SCHEMA other;
    CREATE TABLE other.users (id int PRIMARY KEY, name text, age int);
    INSERT INTO users VALUES (1, 'Ada', 36), (2, 'Ben', 20);
    INSERT INTO other.users VALUES (1, 'not Ada', 1), (2, 'not Ben', 2);
    INSERT INTO parts VALUES (1, 'low');
"""
RULES = [{"name": "users", "key": "id", "value": "name"}, {"name": "parts", "key": "id", "value": "v"}]
USERS = {"users:1", "users:2"}
EVERY = USERS | {"parts:1"}


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("catalog")
    with scene.scene(postgres, valkey, directory, schema=SCHEMA, rules=RULES) as found:
        yield found


@pytest.fixture
def stage(running):
    """The tables made anew, through the proxy, and every key in Redis."""
    session = running.session()
    fresh = "DROP SCHEMA public, other CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC"
    run(session, f"BEGIN; {fresh}; {SCHEMA}; COMMIT")
    again(running, session)
    assert running.settled() == EVERY
    return running


def run(session, *statements):
    for text in statements:
        answer = session.simple(text)
        assert not answer.errors, (text, answer)
    return answer


def again(stage, session, tries=20):
    """Read until every row is there: a read may come before the catalog is known again. The caller says what must."""
    for _ in range(tries):
        run(session, "SELECT * FROM users", "SELECT * FROM parts")
        stage.settle()
        if stage.held().keys() >= stage.expected().keys():
            break


# -- definitions

DEFINITIONS = {
    "add a column": "ALTER TABLE users ADD COLUMN mail text DEFAULT 'none'",
    "drop a column": "ALTER TABLE users DROP COLUMN age",
    "retype the value": "ALTER TABLE users ALTER COLUMN name TYPE varchar(2) USING left(name, 2)",
    "retype the key": "ALTER TABLE users ALTER COLUMN id TYPE bigint",
    "an index": "CREATE INDEX ON users (name)",
    "analyze": "ANALYZE users",
    "drop and make anew": "DROP TABLE users; CREATE TABLE users (name text, id int PRIMARY KEY); "
    "INSERT INTO users VALUES ('new', 1), ('newer', 2)",
    "make anew under the name": "ALTER TABLE users RENAME TO old_users; "
    "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'x'), (2, 'y')",
    "swap": "BEGIN; ALTER TABLE users RENAME TO u; ALTER INDEX users_pkey RENAME TO u_pkey; "
    "ALTER TABLE other.users SET SCHEMA public; COMMIT",
    "a trigger": "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS "
    "$$BEGIN NEW.name := 'by trigger'; RETURN NEW; END$$; "
    "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION t(); "
    "UPDATE users SET name = 'by hand' WHERE id = 1",
    "a rule": "CREATE RULE r AS ON UPDATE TO users DO INSTEAD NOTHING",
    "a generated column": "ALTER TABLE users DROP COLUMN name; "
    "ALTER TABLE users ADD COLUMN name text GENERATED ALWAYS AS ('n' || age) STORED",
    "in a block": "BEGIN; ALTER TABLE users ADD mail text; UPDATE users SET name = 'in the block' WHERE id = 1; COMMIT",
    "undone": "BEGIN; DROP TABLE users; ROLLBACK",
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_table_that_is_defined_anew(stage, name):
    session, other = stage.session(), stage.connect()
    run(session, DEFINITIONS[name])
    stage.settled()
    again(stage, session)
    present = stage.settled()
    assert present >= set(map(bytes.decode, stage.expected())), "captured again"
    run(
        session, "UPDATE users SET age = 5" if name == "a generated column" else "UPDATE users SET id = id WHERE id = 1"
    )
    if name != "a generated column":
        run(session, "UPDATE users SET name = 'zz' WHERE id = 1")
        run(other, "UPDATE users SET name = 'yy' WHERE id = 2")
    stage.settled()


def test_the_value_column_is_renamed_and_comes_back(stage):
    session = stage.session()
    run(session, "ALTER TABLE users RENAME COLUMN name TO title", "SELECT * FROM users", "SELECT * FROM users")
    run(session, "UPDATE users SET title = 'unseen' WHERE id = 1", "SELECT id, title AS name FROM users")
    stage.settle()
    assert not {key for key in stage.held() if key.startswith(b"users")}
    run(session, "ALTER TABLE users RENAME COLUMN title TO name")
    again(stage, session)
    assert stage.settled() == EVERY


def test_another_column_takes_the_name(stage):
    session = stage.session()
    run(session, "ALTER TABLE users RENAME name TO was; ALTER TABLE users ADD COLUMN name text DEFAULT 'default'")
    again(stage, session)
    assert stage.settled() == EVERY
    assert stage.redis.get("users:1") == b"default"


def test_a_table_without_the_value_column_is_not_captured(stage):
    session = stage.session()
    run(session, "ALTER TABLE users DROP COLUMN name", "SELECT * FROM users", "SELECT * FROM users")
    stage.settle()
    assert not {key for key in stage.held() if key.startswith(b"users")}
    run(session, "ALTER TABLE users ADD COLUMN name text DEFAULT 'back'")
    again(stage, session)
    assert stage.settled() == EVERY


def test_a_table_that_is_dropped(stage):
    session = stage.session()
    run(session, "DROP TABLE users", "SELECT 1", "CREATE TABLE users (id int, name text)", "SELECT * FROM users")
    run(session, "INSERT INTO users VALUES (1, 'a'), (1, 'b')", "SELECT * FROM users", "SELECT * FROM users")
    stage.settle()
    assert not {key for key in stage.held() if key.startswith(b"users")}, "no unique index covers the key"


def test_partitions_come_and_go(stage):
    session = stage.session()
    run(session, "CREATE TABLE parts_high (id int PRIMARY KEY, v text)", "INSERT INTO parts_high VALUES (11, 'free')")
    run(session, "ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (10) TO (20)")
    again(stage, session)
    assert stage.settled() == EVERY | {"parts:11"}
    run(session, "UPDATE parts_high SET v = 'direct' WHERE id = 11")
    assert "parts:11" not in stage.settled()
    again(stage, session)
    run(session, "ALTER TABLE parts DETACH PARTITION parts_high")
    again(stage, session)
    assert stage.settled() == EVERY
    run(session, "UPDATE parts_high SET v = 'on its own' WHERE id = 11", "INSERT INTO parts_high VALUES (1, 'no')")
    assert stage.settled() == EVERY


def test_a_statement_prepared_before(stage):
    session = stage.session()
    run(session, "PREPARE u (text, int) AS UPDATE users SET name = $1 WHERE id = $2")
    run(session, "PREPARE s AS SELECT id, name FROM users")
    run(session, "EXECUTE u ('before', 1)", "ALTER TABLE users RENAME TO was")
    run(session, "CREATE TABLE users (id int PRIMARY KEY, name text)", "INSERT INTO users VALUES (1, 'new'), (2, 'n')")
    run(session, "EXECUTE u ('after', 1)", "EXECUTE s", "EXECUTE s")
    assert stage.settled() >= USERS


def test_definitions_by_another_session_while_one_reads(stage):
    session, other = stage.session(), stage.connect()
    run(session, "BEGIN", "SELECT id, name FROM users")
    other.send(frontend.Query(b"ALTER TABLE users ALTER COLUMN name TYPE text USING upper(name)"))
    run(session, "SELECT id, name FROM users", "COMMIT")
    assert not other.answer().errors
    stage.settled()
    again(stage, session)
    assert stage.settled() == EVERY


# -- names


def test_a_temporary_table_shadows(stage):
    session = stage.session()
    run(session, "CREATE TEMP TABLE users (id int PRIMARY KEY, name text)", "INSERT INTO users VALUES (1, 'temporary')")
    run(session, "SELECT id, name FROM users", "UPDATE users SET name = 'also temporary' WHERE id = 1")
    run(session, "UPDATE pg_temp.users SET name = 'x' WHERE id = 1", "SELECT * FROM pg_temp.users")
    stage.settled()
    run(session, "SELECT id, name FROM public.users")
    assert stage.settled() == EVERY
    run(session, "DROP TABLE pg_temp.users", "UPDATE users SET name = 'real' WHERE id = 1")
    stage.settled()


@pytest.mark.parametrize("order", ["other, public", '"$user", public', "pg_catalog, other"])
@pytest.mark.parametrize("how", ["set", "set_config", "startup", "options", "role", "database", "local"])
def test_the_same_name_in_two_schemas(stage, postgres, order, how):
    database, role = stage.database, f"role_{stage.database}"
    run(stage.direct, f"CREATE ROLE {role} SUPERUSER LOGIN")
    session = None
    try:
        if how == "role":
            run(stage.direct, f"ALTER ROLE {role} SET search_path = {order}")
        elif how == "database":
            run(stage.direct, f"ALTER DATABASE {database} SET search_path = {order}")
        parameters = {"search_path": order} if how == "startup" else {}
        if how == "options":
            parameters = {"options": "-c search_path=" + order.replace(" ", "\\ ")}
        session = stage.connect(user=role, **parameters)
        if how == "set":
            run(session, f"SET search_path = {order}")
        elif how == "set_config":
            run(session, f"SELECT set_config('search_path', '{order}', false)")
        elif how == "local":
            run(session, "BEGIN", f"SET LOCAL search_path = {order}")
        run(session, "UPDATE users SET name = 'by name' WHERE id = 1", "SELECT id, name FROM users")
        if how == "local":
            run(session, "COMMIT", "UPDATE users SET name = 'in public' WHERE id = 2")
        present = stage.settled()
        assert "parts:1" in present
        if order.startswith("other"):
            assert "users:2" in present, "a write of another table says nothing of this one's other rows"
    finally:
        if session is not None:
            session.close()
        run(stage.direct, f"ALTER DATABASE {database} RESET search_path")
        stage.eventually(lambda: not stage.direct.simple(f"DROP ROLE IF EXISTS {role}").errors)


def test_a_schema_that_the_user_may_not_use_is_passed_over(stage):
    user = f"carol_{stage.database}"
    run(stage.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
    session = stage.connect(user=user, search_path="other, public")
    run(session, "UPDATE users SET name = 'in public' WHERE id = 1")
    assert stage.settled() >= {"users:2"}
    run(session, "SELECT id, name FROM users")
    assert stage.settled() == EVERY
    session.close()
    run(stage.direct, f"REVOKE ALL ON users FROM {user}")
    stage.eventually(lambda: not stage.direct.simple(f"DROP ROLE {user}").errors)


def test_set_role_changes_what_user_means(stage):
    role = f"mine_{stage.database}"
    run(stage.direct, f"CREATE ROLE {role} SUPERUSER", f"CREATE SCHEMA {role}")
    try:
        run(stage.direct, f"CREATE TABLE {role}.users (id int PRIMARY KEY, name text)")
        run(stage.direct, f"INSERT INTO {role}.users VALUES (1, 'mine')")
        session = stage.session()
        run(session, f"SET ROLE {role}", "UPDATE users SET name = 'mine still' WHERE id = 1", "SELECT * FROM users")
        stage.settled()
        run(session, "RESET ROLE", "UPDATE users SET name = 'everybody''s' WHERE id = 1", "SELECT * FROM users")
        assert stage.settled() >= USERS
    finally:
        run(stage.direct, f"DROP SCHEMA {role} CASCADE", f"DROP ROLE {role}")


# -- several databases, several users, and no catalog at all


def test_several_databases(postgres, stage, tmp_path):
    with fresh_database(postgres) as second, fresh_database(postgres) as third:
        for name in (second, third):
            with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
                connection.execute(SCHEMA)
                connection.execute(sql.SQL("UPDATE users SET name = {}").format(sql.Literal(name)))
        template = "{database}/{table}/{id}"
        entries = [{**RULES[0], "database": name, "redis_key": template} for name in (stage.database, second)]
        config: dict[str, Any] = {
            "proxy": {"listen": f"{HOST}:{free_port()}", "shutdown_timeout": "3s"},
            "postgres": {"host": HOST, "port": postgres.port, "database": second},
            "redis": {"url": stage.proxy.config["redis"]["url"].rpartition("/")[0] + "/11"},
            "admin": {"listen": f"{HOST}:{free_port()}"},
            "table": entries,
        }
        proxy = Proxy(tmp_path / "several.toml", config)
        with redis.Redis.from_url(config["redis"]["url"]) as client:
            client.flushdb()
            try:
                proxy.start()
                scene.wait_until_ready(proxy)
                for name in (stage.database, second, third):
                    with Speaker(proxy.host, proxy.port, database=name) as session:
                        run(session, "SELECT id, name FROM users", "UPDATE users SET name = 'new' WHERE id = 2")
                proxy.settle()
                found = {key: client.get(key) for key in client.scan_iter() if not key.startswith(b"rowtap:")}
                first = stage.database.encode()
                assert found == {
                    first + b"/users/1": b"Ada",
                    first + b"/users/2": b"new",
                    second.encode() + b"/users/1": second.encode(),
                    second.encode() + b"/users/2": b"new",
                }
            finally:
                proxy.finish()


def test_several_users(stage):
    for user in ("postgres", f"alice_{stage.database}"):
        if user != "postgres":
            run(stage.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
        session = stage.connect(user=user)
        run(session, f"UPDATE users SET name = '{user}' WHERE id = 1", "SELECT id, name FROM users")
        assert stage.settled() == EVERY
        session.close()
    run(stage.direct, f"REVOKE ALL ON users FROM {user}")
    stage.eventually(lambda: not stage.direct.simple(f"DROP ROLE {user}").errors)


def test_rows_a_policy_hides(stage):
    """What a user is not shown is not what there is."""
    user = f"bob_{stage.database}"
    run(stage.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
    admin = stage.session()
    run(admin, "ALTER TABLE users ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON users USING (id = 1)")
    again(stage, admin)
    session = stage.connect(user=user)
    run(session, "UPDATE users SET name = 'seen' WHERE id = 1", "UPDATE users SET name = 'hidden' WHERE id = 2")
    run(session, "DELETE FROM users WHERE id = 2", "SELECT * FROM users")
    stage.settled()
    session.close()
    run(stage.direct, "DROP POLICY p ON users", f"REVOKE ALL ON users FROM {user}")
    stage.eventually(lambda: not stage.direct.simple(f"DROP ROLE {user}").errors)


def test_a_catalog_that_cannot_be_learned(postgres, valkey, tmp_path):
    """A user who may not read the system catalogs: nothing fills, and whatever may be a write removes every key."""
    with scene.scene(postgres, valkey, tmp_path, schema=SCHEMA, rules=RULES, learned=False) as found:
        user = f"blind_{found.database}"
        run(found.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
        run(found.direct, "REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC")
        session = found.connect(user=user)
        found.redis.set("users:1", "Ada")
        run(session, "SELECT id, name FROM users")
        assert found.settled() == {"users:1"}
        run(session, "UPDATE users SET name = 'unseen' WHERE id = 1")
        assert found.settled() == set()
        run(session, "SELECT id, name FROM users")
        assert found.settled() == set()
        admin = found.session()
        run(admin, "SELECT id, name FROM users", "SELECT id, name FROM users")
        assert found.settled() <= USERS
        session.close()
        run(found.direct, f"REVOKE ALL ON users FROM {user}")
        found.eventually(lambda: not found.direct.simple(f"DROP ROLE {user}").errors)
