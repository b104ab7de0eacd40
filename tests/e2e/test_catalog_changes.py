"""DDL while the proxy runs, and names that mean different tables in different sessions."""

from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from protocol import frontend
from proxy.demo.servers import HOST, free_port
from tests.e2e.deployment import deploy, wait_until_ready
from tests.e2e.statement_client import StatementClient
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
ALL_KEYS = USERS | {"parts:1"}


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("catalog")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES) as found:
        yield found


@pytest.fixture
def deployment(running):
    """The tables are created again, through the proxy, and every key is in Redis."""
    session = running.session()
    fresh = "DROP SCHEMA public, other CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC"
    run(session, f"BEGIN; {fresh}; {SCHEMA}; COMMIT")
    read_until_filled(running, session)
    assert running.settle_and_check() == ALL_KEYS
    return running


def run(session, *statements):
    for text in statements:
        answer = session.simple(text)
        assert not answer.errors, (text, answer)
    return answer


def read_until_filled(deployment, session, tries=20):
    """Read until every row's key is present: the first reads may come before the catalog is learned again."""
    for _ in range(tries):
        run(session, "SELECT * FROM users", "SELECT * FROM parts")
        deployment.settle()
        if deployment.held().keys() >= deployment.expected().keys():
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
def test_table_is_captured_again_after_ddl(deployment, name):
    session, other = deployment.session(), deployment.connect()
    run(session, DEFINITIONS[name])
    deployment.settle_and_check()
    read_until_filled(deployment, session)
    present = deployment.settle_and_check()
    assert present >= set(map(bytes.decode, deployment.expected())), "captured again"
    run(
        session, "UPDATE users SET age = 5" if name == "a generated column" else "UPDATE users SET id = id WHERE id = 1"
    )
    if name != "a generated column":
        run(session, "UPDATE users SET name = 'zz' WHERE id = 1")
        run(other, "UPDATE users SET name = 'yy' WHERE id = 2")
    deployment.settle_and_check()


def test_table_is_captured_again_when_its_value_column_is_renamed_back(deployment):
    session = deployment.session()
    run(session, "ALTER TABLE users RENAME COLUMN name TO title", "SELECT * FROM users", "SELECT * FROM users")
    run(session, "UPDATE users SET title = 'unseen' WHERE id = 1", "SELECT id, title AS name FROM users")
    deployment.settle()
    assert not {key for key in deployment.held() if key.startswith(b"users")}
    run(session, "ALTER TABLE users RENAME COLUMN title TO name")
    read_until_filled(deployment, session)
    assert deployment.settle_and_check() == ALL_KEYS


def test_other_column_with_the_configured_name_is_captured(deployment):
    session = deployment.session()
    run(session, "ALTER TABLE users RENAME name TO was; ALTER TABLE users ADD COLUMN name text DEFAULT 'default'")
    read_until_filled(deployment, session)
    assert deployment.settle_and_check() == ALL_KEYS
    assert deployment.redis.get("users:1") == b"default"


def test_table_without_its_value_column_is_not_captured(deployment):
    session = deployment.session()
    run(session, "ALTER TABLE users DROP COLUMN name", "SELECT * FROM users", "SELECT * FROM users")
    deployment.settle()
    assert not {key for key in deployment.held() if key.startswith(b"users")}
    run(session, "ALTER TABLE users ADD COLUMN name text DEFAULT 'back'")
    read_until_filled(deployment, session)
    assert deployment.settle_and_check() == ALL_KEYS


def test_keys_are_removed_when_a_table_is_dropped_and_recreated_without_a_key(deployment):
    session = deployment.session()
    run(session, "DROP TABLE users", "SELECT 1", "CREATE TABLE users (id int, name text)", "SELECT * FROM users")
    run(session, "INSERT INTO users VALUES (1, 'a'), (1, 'b')", "SELECT * FROM users", "SELECT * FROM users")
    deployment.settle()
    assert not {key for key in deployment.held() if key.startswith(b"users")}, "no unique index covers the key"


def test_attached_partition_is_captured_until_it_is_detached(deployment):
    session = deployment.session()
    run(session, "CREATE TABLE parts_high (id int PRIMARY KEY, v text)", "INSERT INTO parts_high VALUES (11, 'free')")
    run(session, "ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (10) TO (20)")
    read_until_filled(deployment, session)
    assert deployment.settle_and_check() == ALL_KEYS | {"parts:11"}
    run(session, "UPDATE parts_high SET v = 'direct' WHERE id = 11")
    assert "parts:11" not in deployment.settle_and_check()
    read_until_filled(deployment, session)
    run(session, "ALTER TABLE parts DETACH PARTITION parts_high")
    read_until_filled(deployment, session)
    assert deployment.settle_and_check() == ALL_KEYS
    run(session, "UPDATE parts_high SET v = 'on its own' WHERE id = 11", "INSERT INTO parts_high VALUES (1, 'no')")
    assert deployment.settle_and_check() == ALL_KEYS


def test_statement_prepared_before_ddl_leaves_no_stale_key(deployment):
    session = deployment.session()
    run(session, "PREPARE u (text, int) AS UPDATE users SET name = $1 WHERE id = $2")
    run(session, "PREPARE s AS SELECT id, name FROM users")
    run(session, "EXECUTE u ('before', 1)", "ALTER TABLE users RENAME TO was")
    run(session, "CREATE TABLE users (id int PRIMARY KEY, name text)", "INSERT INTO users VALUES (1, 'new'), (2, 'n')")
    run(session, "EXECUTE u ('after', 1)", "EXECUTE s", "EXECUTE s")
    assert deployment.settle_and_check() >= USERS


def test_ddl_of_another_session_leaves_no_stale_key_of_a_reader(deployment):
    session, other = deployment.session(), deployment.connect()
    run(session, "BEGIN", "SELECT id, name FROM users")
    other.send(frontend.Query(b"ALTER TABLE users ALTER COLUMN name TYPE text USING upper(name)"))
    run(session, "SELECT id, name FROM users", "COMMIT")
    assert not other.answer().errors
    deployment.settle_and_check()
    read_until_filled(deployment, session)
    assert deployment.settle_and_check() == ALL_KEYS


# -- names


def test_temporary_table_of_the_same_name_is_not_captured(deployment):
    session = deployment.session()
    run(session, "CREATE TEMP TABLE users (id int PRIMARY KEY, name text)", "INSERT INTO users VALUES (1, 'temporary')")
    run(session, "SELECT id, name FROM users", "UPDATE users SET name = 'also temporary' WHERE id = 1")
    run(session, "UPDATE pg_temp.users SET name = 'x' WHERE id = 1", "SELECT * FROM pg_temp.users")
    deployment.settle_and_check()
    run(session, "SELECT id, name FROM public.users")
    assert deployment.settle_and_check() == ALL_KEYS
    run(session, "DROP TABLE pg_temp.users", "UPDATE users SET name = 'real' WHERE id = 1")
    deployment.settle_and_check()


@pytest.mark.parametrize("order", ["other, public", '"$user", public', "pg_catalog, other"])
@pytest.mark.parametrize("how", ["set", "set_config", "startup", "options", "role", "database", "local"])
def test_name_found_in_another_schema_leaves_no_stale_key(deployment, postgres, order, how):
    database, role = deployment.database, f"role_{deployment.database}"
    run(deployment.direct, f"CREATE ROLE {role} SUPERUSER LOGIN")
    session = None
    try:
        if how == "role":
            run(deployment.direct, f"ALTER ROLE {role} SET search_path = {order}")
        elif how == "database":
            run(deployment.direct, f"ALTER DATABASE {database} SET search_path = {order}")
        parameters = {"search_path": order} if how == "startup" else {}
        if how == "options":
            parameters = {"options": "-c search_path=" + order.replace(" ", "\\ ")}
        session = deployment.connect(user=role, **parameters)
        if how == "set":
            run(session, f"SET search_path = {order}")
        elif how == "set_config":
            run(session, f"SELECT set_config('search_path', '{order}', false)")
        elif how == "local":
            run(session, "BEGIN", f"SET LOCAL search_path = {order}")
        run(session, "UPDATE users SET name = 'by name' WHERE id = 1", "SELECT id, name FROM users")
        if how == "local":
            run(session, "COMMIT", "UPDATE users SET name = 'in public' WHERE id = 2")
        present = deployment.settle_and_check()
        assert "parts:1" in present
        if order.startswith("other"):
            assert "users:2" in present, "a write of another table says nothing of this one's other rows"
    finally:
        if session is not None:
            session.close()
        run(deployment.direct, f"ALTER DATABASE {database} RESET search_path")
        deployment.wait_until(lambda: not deployment.direct.simple(f"DROP ROLE IF EXISTS {role}").errors)


def test_schema_without_usage_privilege_is_skipped_in_search_path(deployment):
    user = f"carol_{deployment.database}"
    run(deployment.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
    session = deployment.connect(user=user, search_path="other, public")
    run(session, "UPDATE users SET name = 'in public' WHERE id = 1")
    assert deployment.settle_and_check() >= {"users:2"}
    run(session, "SELECT id, name FROM users")
    assert deployment.settle_and_check() == ALL_KEYS
    session.close()
    run(deployment.direct, f"REVOKE ALL ON users FROM {user}")
    deployment.wait_until(lambda: not deployment.direct.simple(f"DROP ROLE {user}").errors)


def test_set_role_changes_the_schema_that_user_means(deployment):
    role = f"mine_{deployment.database}"
    run(deployment.direct, f"CREATE ROLE {role} SUPERUSER", f"CREATE SCHEMA {role}")
    try:
        run(deployment.direct, f"CREATE TABLE {role}.users (id int PRIMARY KEY, name text)")
        run(deployment.direct, f"INSERT INTO {role}.users VALUES (1, 'mine')")
        session = deployment.session()
        run(session, f"SET ROLE {role}", "UPDATE users SET name = 'mine still' WHERE id = 1", "SELECT * FROM users")
        deployment.settle_and_check()
        run(session, "RESET ROLE", "UPDATE users SET name = 'public''s' WHERE id = 1", "SELECT * FROM users")
        assert deployment.settle_and_check() >= USERS
    finally:
        run(deployment.direct, f"DROP SCHEMA {role} CASCADE", f"DROP ROLE {role}")


# -- several databases, several users, and no catalog at all


def test_rules_of_two_databases_fill_their_own_keys(postgres, deployment, tmp_path):
    with fresh_database(postgres) as second, fresh_database(postgres) as third:
        for name in (second, third):
            with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
                connection.execute(SCHEMA)
                connection.execute(sql.SQL("UPDATE users SET name = {}").format(sql.Literal(name)))
        template = "{database}/{table}/{id}"
        entries = [{**RULES[0], "database": name, "redis_key": template} for name in (deployment.database, second)]
        config: dict[str, Any] = {
            "proxy": {"listen": f"{HOST}:{free_port()}", "shutdown_timeout": "3s"},
            "postgres": {"host": HOST, "port": postgres.port, "database": second},
            "redis": {"url": deployment.proxy.config["redis"]["url"].rpartition("/")[0] + "/11"},
            "admin": {"listen": f"{HOST}:{free_port()}"},
            "table": entries,
        }
        proxy = Proxy(tmp_path / "several.toml", config)
        with redis.Redis.from_url(config["redis"]["url"]) as client:
            client.flushdb()
            try:
                proxy.start()
                wait_until_ready(proxy)
                for name in (deployment.database, second, third):
                    with StatementClient(proxy.host, proxy.port, database=name) as session:
                        run(session, "SELECT id, name FROM users", "UPDATE users SET name = 'new' WHERE id = 2")
                proxy.settle()
                found = {key: client.get(key) for key in client.scan_iter() if not key.startswith(b"rowtap:")}
                first = deployment.database.encode()
                assert found == {
                    first + b"/users/1": b"Ada",
                    first + b"/users/2": b"new",
                    second.encode() + b"/users/1": second.encode(),
                    second.encode() + b"/users/2": b"new",
                }
            finally:
                proxy.finish()


def test_statements_of_different_users_are_captured_alike(deployment):
    for user in ("postgres", f"alice_{deployment.database}"):
        if user != "postgres":
            run(deployment.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
        session = deployment.connect(user=user)
        run(session, f"UPDATE users SET name = '{user}' WHERE id = 1", "SELECT id, name FROM users")
        assert deployment.settle_and_check() == ALL_KEYS
        session.close()
    run(deployment.direct, f"REVOKE ALL ON users FROM {user}")
    deployment.wait_until(lambda: not deployment.direct.simple(f"DROP ROLE {user}").errors)


def test_row_hidden_by_a_policy_leaves_no_stale_key(deployment):
    """A row the user may not see still exists."""
    user = f"bob_{deployment.database}"
    run(deployment.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
    admin = deployment.session()
    run(admin, "ALTER TABLE users ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON users USING (id = 1)")
    read_until_filled(deployment, admin)
    session = deployment.connect(user=user)
    run(session, "UPDATE users SET name = 'seen' WHERE id = 1", "UPDATE users SET name = 'hidden' WHERE id = 2")
    run(session, "DELETE FROM users WHERE id = 2", "SELECT * FROM users")
    deployment.settle_and_check()
    session.close()
    run(deployment.direct, "DROP POLICY p ON users", f"REVOKE ALL ON users FROM {user}")
    deployment.wait_until(lambda: not deployment.direct.simple(f"DROP ROLE {user}").errors)


def test_writes_flush_and_reads_do_not_fill_while_the_catalog_is_unknown(postgres, valkey, tmp_path):
    """The user may not read the system catalogs, so the catalog query fails."""
    with deploy(postgres, valkey, tmp_path, schema=SCHEMA, rules=RULES, learned=False) as found:
        user = f"blind_{found.database}"
        run(found.direct, f"CREATE ROLE {user} LOGIN", f"GRANT ALL ON users TO {user}")
        run(found.direct, "REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC")
        session = found.connect(user=user)
        found.redis.set("users:1", "Ada")
        run(session, "SELECT id, name FROM users")
        assert found.settle_and_check() == {"users:1"}
        run(session, "UPDATE users SET name = 'unseen' WHERE id = 1")
        assert found.settle_and_check() == set()
        run(session, "SELECT id, name FROM users")
        assert found.settle_and_check() == set()
        admin = found.session()
        run(admin, "SELECT id, name FROM users", "SELECT id, name FROM users")
        assert found.settle_and_check() <= USERS
        session.close()
        run(found.direct, f"REVOKE ALL ON users FROM {user}")
        found.wait_until(lambda: not found.direct.simple(f"DROP ROLE {user}").errors)
