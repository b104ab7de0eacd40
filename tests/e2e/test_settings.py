"""Run-time parameters that change how a value is printed or how a statement is read: whatever a session sets, in
whatever way, Redis holds PostgreSQL's text under canonical settings, or nothing."""

import time

import pytest

from protocol import frontend
from tests.e2e import deployment as scene
from tests.e2e.statement_client import int4, text

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
EVERY = {"events:1", "events:2", "spans:1", "blobs:1", "names:1", "names:2", "names:3"}
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
WAYS = ["SET", "SET LOCAL", "set_config", "startup", "options", "role", "database"]


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("settings")
    with scene.scene(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        found.reset(warm=False)
        found.direct.simple(f"CREATE ROLE setter_{found.database} SUPERUSER LOGIN")
        try:
            yield found
        finally:
            found.direct.simple(f"DROP ROLE setter_{found.database}")


@pytest.fixture
def stage(running):
    running.reset(warm=False)
    return running


def run(session, *statements):
    for sql in statements:
        answer = session.simple(sql)
        assert not answer.errors, (sql, answer)


def alter(stage, sql):
    """What sessions begin with changes, and the catalog is asked again."""
    learned = stage.proxy.log_text().count("catalog learned")
    run(stage.session(), sql)
    deadline = time.monotonic() + 20
    while stage.proxy.log_text().count("catalog learned") == learned:
        assert time.monotonic() < deadline, stage.proxy.log_text()
        run(stage.session(), "SELECT 1")


def read_all(session, way="simple"):
    for name in TABLES:
        answer = getattr(session, way)(f"SELECT * FROM {name}")
        assert not answer.errors, (name, answer)


def rewrite_all(session):
    """The values, written as this session prints them."""
    for name, column in zip(TABLES, COLUMNS, strict=True):
        for row in session.simple(f"SELECT {column}, id FROM {name}").rows:
            value = row[0].replace(b"'", b"''").decode("latin1")
            session.simple(f"UPDATE {name} SET {column} = '{value}' WHERE id = {row[1].decode()}")


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) for name in SETTINGS for how in WAYS],
)
def test_a_setting(stage, name, how):
    value, role = SETTINGS[name], f"setter_{stage.database}"
    bare = value.strip("'")
    startup = {name: bare} if how == "startup" else {}
    if how == "options":
        startup = {"options": f"-c {name}={bare}".replace(", ", ",\\ ")}
    target = {"role": f"ROLE {role}", "database": f"DATABASE {stage.database}"}.get(how)
    if target:
        alter(stage, f"ALTER {target} SET {name} = {value}")
    try:
        with stage.connect(user=role, **startup) as session:
            if how == "SET":
                run(session, f"SET {name} = {value}")
            elif how == "SET LOCAL":
                run(session, "BEGIN", f"SET LOCAL {name} = {value}")
            elif how == "set_config":
                run(session, f"SELECT set_config('{name}', {value if value[0] == chr(39) else repr(value)}, false)")
            for way in ("simple", "binary", "prepared"):
                read_all(session, way)
                stage.settled()
            if how == "SET LOCAL":
                run(session, "COMMIT")
                read_all(session)
                assert stage.settled() >= {"names:3"}
            rewrite_all(session)
            stage.settled()
            assert not session.text("UPDATE names SET name = $1 WHERE id = $2", text("plain"), int4(3)).errors
            assert "names:3" in stage.settled(), "what no setting touches stays warm"
    finally:
        if target:
            alter(stage, f"ALTER {target} RESET ALL")


@pytest.mark.parametrize("end", ["RESET ALL", "DISCARD ALL", "RESET datestyle; RESET timezone; RESET bytea_output"])
def test_settings_taken_back(stage, end):
    with stage.connect() as session:
        run(session, "SET datestyle = 'SQL'; SET timezone = 'Asia/Tokyo'; SET bytea_output = 'escape'")
        read_all(session)
        stage.settled()
        run(session, *end.split("; "))
        read_all(session)
        stage.settled()
        read_all(session, "binary")
        assert stage.settled() >= EVERY


def test_a_setting_that_was_rolled_back(stage):
    with stage.connect() as session:
        run(session, "BEGIN", "SET datestyle = 'German'", "SET timezone = 'Asia/Tokyo'", "ROLLBACK")
        read_all(session)
        stage.settled()
        run(session, "BEGIN", "SAVEPOINT a", "SET bytea_output = 'escape'", "ROLLBACK TO a", "COMMIT")
        read_all(session)
        stage.settled()


@pytest.mark.parametrize("setting", ["off", "on"])
def test_backslashes_in_strings(stage, setting):
    """The same text means another value."""
    stage.reset(warm=True)
    with stage.connect() as session:
        run(session, f"SET standard_conforming_strings = {setting}")
        for literal in ("'a\\\\b'", "'tab\\t'", "E'it\\'s'", "'x\\'\\''", "U&'\\0041'", "$$\\n$$", "'''\\\\'''"):
            session.simple(f"UPDATE names SET name = {literal} WHERE id = 1")
            stage.settled()
            session.simple(f"SELECT name FROM names WHERE id = 1 AND {literal} <> ''")
            stage.settled()


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SJIS", "SQL_ASCII"])
def test_encodings(stage, encoding):
    stage.reset(warm=True)
    with stage.connect(client_encoding=encoding) as session:
        for value in ("plain", "é", "表", "ソ\\"):
            try:
                raw = value.encode({"UTF8": "utf8", "LATIN1": "latin1", "SJIS": "sjis", "SQL_ASCII": "utf8"}[encoding])
            except UnicodeEncodeError:
                continue
            session.send(frontend.Query(b"UPDATE names SET name = '" + raw + b"' WHERE id = 1"))
            assert not session.answer().errors
            stage.settled()
            run(session, "SELECT id, name FROM names WHERE id <> 1")
            stage.settled()
