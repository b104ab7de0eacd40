"""``rowtap check`` against real servers, good and bad ones."""

import socket

import pytest

from proxy.commands.check import Verdict, examine
from proxy.demo.servers import HOST, free_port
from tests.script import FakeServer

USERS = {"name": "users", "key": "id", "value": "name"}
TABLE = "CREATE TABLE users (id bigint PRIMARY KEY, name text, email text UNIQUE)"


@pytest.fixture
def configure(configure):
    """`configure(tables, **environment)`: as the fixture of this name in conftest.py, with a table by default."""
    return lambda tables=(USERS,), **environment: configure(*tables, **environment)


def bad(findings):
    return [
        (finding.verdict.value, finding.subject, finding.text)
        for finding in findings
        if finding.verdict is not Verdict.OK
    ]


def test_working_configuration_has_no_bad_finding(configure, connect, postgres):
    connect().execute(TABLE)
    findings = list(examine(configure(), postgres.dsn()))
    assert bad(findings) == []
    assert [finding.subject for finding in findings][:2] == ["config", "postgres"]
    assert "can be captured" in findings[2].text
    assert findings[3].text.endswith(" answers")


def test_tables_are_not_looked_at_without_a_login(configure):
    ((verdict, subject, text),) = bad(examine(configure(), None))
    assert (verdict, subject) == ("warning", "tables")
    assert "--dsn" in text


def test_login_is_taken_from_the_environment(configure, connect, monkeypatch):
    connect().execute(TABLE)
    monkeypatch.setenv("PGUSER", "scram_user")
    monkeypatch.setenv("PGPASSWORD", "secret")
    assert bad(examine(configure(), None)) == []


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (USERS | {"name": "absent"}, "table public.absent does not exist"),
        (
            USERS | {"value": "nam"},
            "column 'nam' of table public.users does not exist",
        ),
        (
            USERS | {"key": "name"},
            "no unique index of public.users covers the key (name)",
        ),
        (USERS | {"name": "people"}, "public.people is a view; name the table itself"),
    ],
)
def test_rule_that_does_not_fit_the_database_is_an_error(configure, connect, postgres, table, expected):
    connection = connect()
    connection.execute(TABLE)
    connection.execute("CREATE VIEW people AS SELECT * FROM users")
    ((verdict, _, text),) = bad(examine(configure([table]), postgres.dsn()))
    assert verdict == "error"
    assert text.startswith(expected)


def test_triggers_are_named_where_writes_remove_keys(configure, connect, postgres):
    connection = connect()
    connection.execute(TABLE)
    connection.execute("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    connection.execute("CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch()")
    findings = list(examine(configure(), postgres.dsn()))
    assert bad(findings) == []
    assert "because of UPDATE triggers" in findings[2].text


def test_rules_whose_keys_can_meet_are_judged_by_column_types(configure, connect, postgres):
    connection = connect()
    connection.execute(TABLE)
    by_id = [USERS, USERS | {"value": "email", "redis_key": "users:{id}:email"}]
    ((verdict, subject, _),) = bad(examine(configure(by_id), postgres.dsn()))
    assert (verdict, subject) == ("warning", "config"), "integers cannot meet; only the file alone could not know"
    by_text = [USERS | {"key": "email"}, USERS | {"key": "email", "redis_key": "users:{email}:name"}]
    assert "error" in [verdict for verdict, _, _ in bad(examine(configure(by_text), postgres.dsn()))]


def test_wrong_password_is_one_line(configure):
    ((verdict, _, text),) = bad(examine(configure(), "user=scram_user password=wrong"))
    assert verdict == "error"
    assert "password authentication failed" in text
    assert "\n" not in text
    assert "wrong" not in text


def test_missing_database_is_an_error(configure, postgres):
    environment = {"POSTGRES__DATABASE": "nowhere"}
    ((_, subject, text),) = bad(examine(configure(**environment), postgres.dsn()))
    assert subject == "nowhere"
    assert 'database "nowhere" does not exist' in text


def test_unix_socket_is_reached(configure, postgres):
    findings = list(examine(configure(POSTGRES__HOST=str(postgres.socket_dir)), None))
    assert findings[1].verdict is Verdict.OK
    assert str(postgres.socket_dir) in findings[1].text


def test_refused_connections_are_errors_in_words(configure):
    environment = {
        "POSTGRES__PORT": str(free_port()),
        "REDIS__URL": f"redis://:geheim@{HOST}:{free_port()}/0",
    }
    found = bad(examine(configure(**environment), ""))
    assert [(verdict, subject) for verdict, subject, _ in found] == [("error", "postgres"), ("error", "redis")]
    assert "connection refused" in found[0][2]
    assert "geheim" not in found[1][2]
    assert "\n" not in found[1][2]


def test_server_that_is_not_postgresql_is_an_error(configure, valkey):
    environment = {"POSTGRES__PORT": str(valkey.port), "POSTGRES__CONNECT_TIMEOUT": "200ms"}
    found = bad(examine(configure(**environment), None))
    assert found[0][:2] == ("error", "postgres")


def test_server_that_says_nothing_is_given_up_in_time(configure):
    # The kernel accepts for a listening socket; no process ever reads.
    with socket.create_server((HOST, 0)) as silent:
        environment = {
            "POSTGRES__PORT": str(silent.getsockname()[1]),
            "POSTGRES__CONNECT_TIMEOUT": "50ms",
        }
        found = bad(examine(configure(**environment), None))
    assert found[0][:2] == ("error", "postgres")
    assert "no answer within 0.05 s" in found[0][2]


@pytest.mark.parametrize(("answer", "verdict"), [(b"", "error"), (b"E", "error"), (b"S", "ok")])
def test_answer_to_a_request_for_tls_decides_whether_it_is_postgresql(configure, answer, verdict):
    def play(peer):
        peer.read_packet()
        peer.socket.sendall(answer)

    with FakeServer(play) as server:
        environment = {"POSTGRES__PORT": str(server.port)}
        finding = next(one for one in examine(configure(**environment), None) if one.subject == "postgres")
    assert finding.verdict.value == verdict
    assert ("with TLS" in finding.text) == (answer == b"S")


def test_connection_that_is_reset_is_an_error_with_its_reason(configure):
    def play(peer):
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with FakeServer(play) as server:
        environment = {"POSTGRES__PORT": str(server.port)}
        finding = next(one for one in examine(configure(**environment), None) if one.subject == "postgres")
    assert finding.verdict is Verdict.ERROR
    assert "connection reset by peer" in finding.text


def test_sslmode_that_demands_tls_is_an_error_without_it(configure, postgres):
    found = bad(examine(configure(POSTGRES__SSLMODE="require"), None))
    assert ("error", "postgres") in [finding[:2] for finding in found]


def test_unusable_tls_file_is_an_error_that_names_it(configure, tmp_path):
    missing = str(tmp_path / "server.crt")
    found = bad(examine(configure(PROXY__TLS__CERT=missing, PROXY__TLS__KEY=missing), None))
    assert found[0][:2] == ("error", "tls")
    assert missing in found[0][2]


def test_redis_replica_is_an_error(configure, valkey, redis_client):
    redis_client.replicaof(HOST, str(free_port()))
    try:
        found = bad(examine(configure(), None))
    finally:
        redis_client.replicaof("NO", "ONE")
    assert found[-1][:2] == ("error", "redis")
    assert "replica" in found[-1][2]


def test_redis_that_may_evict_is_a_warning(configure, redis_client):
    redis_client.config_set("maxmemory", "100mb")
    try:
        found = bad(examine(configure(), None))
    finally:
        redis_client.config_set("maxmemory", "0")
    assert found[-1][:2] == ("warning", "redis")


def test_report_is_plain_in_a_pipe(rowtap_command, postgres, database, connect, redis_url):
    connect().execute(TABLE)
    sections = {
        "postgres": {"host": HOST, "port": postgres.port, "database": database},
        "redis": {"url": redis_url},
        "table": [USERS],
    }
    done = rowtap_command("check", "--dsn", postgres.dsn(), config=sections)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["ok"] * 4
    done = rowtap_command("check", config=sections | {"redis": {"url": f"redis://{HOST}:{free_port()}"}})
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("error: redis: ")
