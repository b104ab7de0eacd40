"""``rowtap explain`` from the shell: where statements come from, with and without a database."""

import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.commands.explain import read
from proxy.demo.servers import HOST

CONFIG = """
[postgres]
host = "{host}"
port = {port}
database = "{database}"
[[table]]
name = "users"
key = "id"
value = "name"
redis_key = "users:{{id}}"
"""
STORE = "UPDATE users SET name = 'Ada' WHERE id = 1"


@pytest.fixture
def config(tmp_path):
    """`config(**place)`: the path of a configuration, by default of a server that is not there."""

    def write(host=HOST, port=1, database="app"):
        path = tmp_path / "config.toml"
        path.write_text(CONFIG.format(host=host, port=port, database=database))
        return str(path)

    return write


@pytest.fixture
def explain(config):
    def explain(*arguments, given=None, path=None):
        return CliRunner().invoke(app, ["explain", "--config", path or config(), *arguments], input=given)

    return explain


def reasons(result):
    assert result.exit_code == 0, result.output
    return [entry["reason"] for entry in json.loads(result.stdout)]


def test_statement_is_explained_by_title_and_effect(explain):
    result = explain(STORE)
    assert result.exit_code == 0
    title, effect = result.stdout.splitlines()
    assert title.startswith("1. store: ")
    assert "app.public.users" in effect
    assert "id = 1" in effect
    assert result.stderr.startswith("note: no login given")


def test_each_argument_is_printed_before_its_explanations(explain):
    result = explain(f"{STORE}; SELECT id, name FROM users", "DELETE FROM users\nWHERE id = 2")
    lines = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split(":")[0] for line in lines] == [
        f"{STORE}; SELECT id, name FROM users",
        "1. store",
        "2. fill",
        "DELETE FROM users WHERE id = 2",
        "3. evict-delete",
    ]


def test_json_output_is_an_array_of_all_statements(explain):
    result = explain("--json", STORE, "TRUNCATE users")
    assert reasons(result) == ["store", "flush-truncate"]
    assert [entry["statement"] for entry in json.loads(result.stdout)] == [1, 2]


def test_statements_are_read_from_a_file_without_its_byte_order_mark(explain, tmp_path):
    path = tmp_path / "statements.sql"
    path.write_bytes(b"\xef\xbb\xbf" + STORE.encode() + b";\n-- more\nSELECT 1;\n")
    assert reasons(explain("--json", "--file", str(path))) == ["store", "unrelated"]


@pytest.mark.parametrize("arguments", [[], ["--file", "-"]])
def test_statements_are_read_from_standard_input(explain, arguments):
    assert reasons(explain("--json", *arguments, given=f"{STORE};TRUNCATE users")) == ["store", "flush-truncate"]


def test_statement_that_is_not_utf8_is_explained(explain):
    result = explain("--json", given=b"UPDATE users SET name = '\xff\xfe' WHERE id = 1")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)) == 1


@pytest.mark.parametrize("given", ["", "  \n"])
def test_no_statement_is_status_2(explain, given):
    result = explain(given=given)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: nothing to explain")


def test_absent_file_is_status_2(explain, tmp_path):
    result = explain("--file", str(tmp_path / "absent.sql"))
    assert result.exit_code == 2
    assert "absent.sql: cannot be read: no such file or directory" in result.stderr


def test_trigger_of_the_database_is_known_with_a_login_and_not_offline(explain, config, connect, postgres, database):
    connection = connect()
    connection.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    connection.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    connection.execute("CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f()")
    path = config(port=postgres.port, database=database)
    result = explain("--json", "--dsn", f"user={postgres.user}", STORE, path=path)
    assert reasons(result) == ["evict-trigger"]
    assert result.stderr == ""
    assert reasons(explain("--json", "--dsn", f"user={postgres.user}", "--offline", STORE, path=path)) == ["store"]


def test_search_path_decides_which_table_is_meant(explain, config, connect, postgres, database):
    connection = connect()
    connection.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    connection.execute("CREATE SCHEMA other CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    arguments = ("--json", "--dsn", f"user={postgres.user}", STORE)
    path = config(port=postgres.port, database=database)
    assert reasons(explain(*arguments, "--search-path", "$user, public", path=path)) == ["store"]
    both = reasons(explain(*arguments, "--search-path", "$user, public, other", path=path))
    assert both == ["evict-uncertain-name"], "the server passes over a schema that the user may not use"
    assert reasons(explain(*arguments, "--search-path", "other", path=path)) == ["unrelated"]


def test_table_that_is_not_captured_is_a_warning(explain, config, connect, postgres, database):
    connect().execute("CREATE TABLE users (id bigint, name text)")
    path = config(port=postgres.port, database=database)
    result = explain("--dsn", f"user={postgres.user}", STORE, path=path)
    assert result.exit_code == 0
    assert "no unique index of public.users covers the key (id)" in result.stderr


def test_unreachable_server_is_one_error_line_and_status_1(explain):
    result = explain("--dsn", "user=absent", STORE)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_database_without_rules_is_a_warning(explain):
    result = explain("--database", "elsewhere", STORE)
    assert "no [[table]] is configured for database 'elsewhere'" in result.stderr
    assert "unrelated" in result.stdout


def test_terminal_as_standard_input_is_not_read():
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    assert read([], None, Terminal(b"SELECT 1")) == []
    assert read([], Path("-"), Terminal(b"SELECT 1")) == [b"SELECT 1"]
