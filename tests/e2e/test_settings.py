"""Run-time parameters that change how a value is printed or how a statement is read. Whatever a session sets, and by
whatever means, Redis holds PostgreSQL's text under canonical settings, or no key."""

import time

import pytest

from protocol import frontend
from tests.e2e.deployment import deploy
from tests.e2e.statement_client import int4, text

pytestmark = pytest.mark.measured

SCHEMA = """
    CREATE TABLE events (id int PRIMARY KEY, at timestamptz);
    CREATE TABLE floats (id int PRIMARY KEY, v float8);
    CREATE TABLE spans (id int PRIMARY KEY, v interval);
    CREATE TABLE blobs (id int PRIMARY KEY, v bytea);
    CREATE TABLE names (id int PRIMARY KEY, name text);
"""
CONTENT = """
    DELETE FROM events; DELETE FROM floats; DELETE FROM spans; DELETE FROM blobs; DELETE FROM names;
    INSERT INTO events VALUES (1, '2024-07-01 12:00:00.5+00'), (2, '1800-01-01 00:00:00+00');
    INSERT INTO floats VALUES (1, 0.1), (2, 1e23), (3, 2.0 / 3);
    INSERT INTO spans VALUES (1, '1 year 2 days -3:04:05');
    INSERT INTO blobs VALUES (1, '\\x00ff5c27');
    INSERT INTO names VALUES (1, 'Zoë'), (2, 'back\\slash'), (3, 'plain');
"""
TABLES = ["events", "floats", "spans", "blobs", "names"]
COLUMNS = ["at", "v", "v", "v", "name"]
RULES = [{"name": name, "key": "id", "value": value} for name, value in zip(TABLES, COLUMNS, strict=True)]
ALL_KEYS = {"events:1", "events:2", "spans:1", "blobs:1", "names:1", "names:2", "names:3"}
SETTINGS = {
    "datestyle": "'German, DMY'",
    "timezone": "'America/St_Johns'",
    "intervalstyle": "'sql_standard'",
    "extra_float_digits": "'-3'",
    "bytea_output": "'escape'",
    "client_encoding": "'LATIN1'",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "lc_monetary": "'C'",
    "search_path": "public",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
}
SOURCES = ["SET", "SET LOCAL", "set_config", "startup", "options", "role", "database"]


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("settings")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        found.reset(warm=False)
        found.direct.simple(f"CREATE ROLE setter_{found.database} SUPERUSER LOGIN")
        try:
            yield found
        finally:
            found.direct.simple(f"DROP ROLE setter_{found.database}")


@pytest.fixture
def deployment(running):
    running.reset(warm=False)
    return running


def run(session, *statements):
    for sql in statements:
        answer = session.simple(sql)
        assert not answer.errors, (sql, answer)


def alter(deployment, sql):
    """Execute ALTER ROLE or ALTER DATABASE, and wait until the catalog has been learned again."""
    learned = deployment.proxy.log_text().count("worker learns the catalog")
    run(deployment.session(), sql)
    deadline = time.monotonic() + 20
    while deployment.proxy.log_text().count("worker learns the catalog") == learned:
        assert time.monotonic() < deadline, deployment.proxy.log_text()
        run(deployment.session(), "SELECT 1")


def read_all(session, mode="simple"):
    for name in TABLES:
        answer = getattr(session, mode)(f"SELECT * FROM {name}")
        assert not answer.errors, (name, answer)


def rewrite_all(session):
    """Write every value in the form in which this session prints it."""
    for name, column in zip(TABLES, COLUMNS, strict=True):
        for row in session.simple(f"SELECT {column}, id FROM {name}").rows:
            value = row[0].replace(b"'", b"''").decode("latin1")
            session.simple(f"UPDATE {name} SET {column} = '{value}' WHERE id = {row[1].decode()}")


@pytest.mark.parametrize(
    ("name", "source"),
    [(name, source) for name in SETTINGS for source in SOURCES],
)
def test_setting_leaves_no_stale_key(deployment, name, source):
    value, role = SETTINGS[name], f"setter_{deployment.database}"
    bare = value.strip("'")
    startup = {name: bare} if source == "startup" else {}
    if source == "options":
        startup = {"options": f"-c {name}={bare}".replace(", ", ",\\ ")}
    target = {"role": f"ROLE {role}", "database": f"DATABASE {deployment.database}"}.get(source)
    if target:
        alter(deployment, f"ALTER {target} SET {name} = {value}")
    try:
        with deployment.connect(user=role, **startup) as session:
            if source == "SET":
                run(session, f"SET {name} = {value}")
            elif source == "SET LOCAL":
                run(session, "BEGIN", f"SET LOCAL {name} = {value}")
            elif source == "set_config":
                run(session, f"SELECT set_config('{name}', {value if value[0] == chr(39) else repr(value)}, false)")
            for mode in ("simple", "binary", "prepared"):
                read_all(session, mode)
                deployment.settle_and_check()
            if source == "SET LOCAL":
                run(session, "COMMIT")
                read_all(session)
                assert deployment.settle_and_check() >= {"names:3"}
            rewrite_all(session)
            deployment.settle_and_check()
            assert not session.text("UPDATE names SET name = $1 WHERE id = $2", text("plain"), int4(3)).errors
            assert "names:3" in deployment.settle_and_check(), "a plain text value does not depend on settings"
    finally:
        if target:
            alter(deployment, f"ALTER {target} RESET ALL")


@pytest.mark.parametrize("end", ["RESET ALL", "DISCARD ALL", "RESET datestyle; RESET timezone; RESET bytea_output"])
def test_every_key_fills_after_settings_were_reset(deployment, end):
    with deployment.connect() as session:
        run(session, "SET datestyle = 'SQL'; SET timezone = 'Asia/Tokyo'; SET bytea_output = 'escape'")
        read_all(session)
        deployment.settle_and_check()
        run(session, *end.split("; "))
        read_all(session)
        deployment.settle_and_check()
        read_all(session, "binary")
        assert deployment.settle_and_check() >= ALL_KEYS


def test_setting_that_was_rolled_back_leaves_no_stale_key(deployment):
    with deployment.connect() as session:
        run(session, "BEGIN", "SET datestyle = 'German'", "SET timezone = 'Asia/Tokyo'", "ROLLBACK")
        read_all(session)
        deployment.settle_and_check()
        run(session, "BEGIN", "SAVEPOINT a", "SET bytea_output = 'escape'", "ROLLBACK TO a", "COMMIT")
        read_all(session)
        deployment.settle_and_check()


@pytest.mark.parametrize("setting", ["off", "on"])
def test_backslashes_are_read_by_standard_conforming_strings(deployment, setting):
    """The same literal has another value with each setting."""
    deployment.reset(warm=True)
    with deployment.connect() as session:
        run(session, f"SET standard_conforming_strings = {setting}")
        for literal in ("'a\\\\b'", "'tab\\t'", "E'it\\'s'", "'x\\'\\''", "U&'\\0041'", "$$\\n$$", "'''\\\\'''"):
            session.simple(f"UPDATE names SET name = {literal} WHERE id = 1")
            deployment.settle_and_check()
            session.simple(f"SELECT name FROM names WHERE id = 1 AND {literal} <> ''")
            deployment.settle_and_check()


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SJIS", "SQL_ASCII"])
def test_value_in_any_client_encoding_leaves_no_stale_key(deployment, encoding):
    deployment.reset(warm=True)
    with deployment.connect(client_encoding=encoding) as session:
        for value in ("plain", "é", "表", "ソ\\"):
            try:
                raw = value.encode({"UTF8": "utf8", "LATIN1": "latin1", "SJIS": "sjis", "SQL_ASCII": "utf8"}[encoding])
            except UnicodeEncodeError:
                continue
            session.send(frontend.Query(b"UPDATE names SET name = '" + raw + b"' WHERE id = 1"))
            assert not session.answer().errors
            deployment.settle_and_check()
            run(session, "SELECT id, name FROM names WHERE id <> 1")
            deployment.settle_and_check()
