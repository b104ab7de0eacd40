"""The debug log of messages: each is there with direction, type and length, and no value ever."""

import io
import json
import logging
import struct

import psycopg
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from protocol import authentication, backend, codes, frontend, startup, tracing
from protocol.copy_data import CopyData
from proxy import logs
from proxy.config.sections import LogSection
from proxy.net.relay import message_log
from proxy.net.relay.message_log import CAPACITY, MessageLog
from tests.proxy.conftest import Fault
from tests.proxy.net.bare import open_session, read_to_end, read_until_ready, startup_packet
from tests.script import READY

SECRET = "Xq7secret"


@pytest.fixture
def lines(monkeypatch):
    """What `MessageLog` logs, as dictionaries without what they share."""
    found = structlog.testing.LogCapture()
    monkeypatch.setattr(message_log, "log", structlog.wrap_logger(None, processors=[found]))
    return found.entries


@pytest.fixture
def messages(lines):
    return MessageLog("client", unexpected)


def unexpected(_where, error):
    raise error


def seen(lines):
    return [(line["direction"], line["type"], line["length"]) for line in lines]


def test_each_message_has_a_line_with_direction_type_and_length(messages, lines):
    query, row = frontend.Query(SECRET.encode()), backend.DataRow([SECRET.encode(), None])
    messages.packet(startup.SSL_REQUEST_FRAME)
    messages.frontend(bytes(query) + frontend.SYNC_FRAME)
    messages.backend(bytes(row) + bytes(READY))
    assert seen(lines) == [
        ("frontend", "SSLRequest", 8),
        ("frontend", "Query", len(bytes(query))),
        ("frontend", "Sync", 5),
        ("backend", "DataRow", len(bytes(row))),
        ("backend", "ReadyForQuery", 6),
    ]
    assert lines[3]["fields"] == "values=2 [9 bytes, NULL]"
    assert {line["event"] for line in lines} == {"message"}
    assert {line["client"] for line in lines} == {"client"}
    assert SECRET not in repr(lines)


@given(st.lists(st.integers(1, 30), max_size=30))
def test_lines_are_the_same_wherever_chunks_end(cuts):
    data = b"".join(bytes(backend.DataRow([b"x" * size])) for size in range(20)) + bytes(READY)
    whole: list[object] = []
    split: list[object] = []
    for found, sizes in ((whole, [len(data)]), (split, [*cuts, len(data)])):
        with pytest.MonkeyPatch.context() as patch:
            capture = structlog.testing.LogCapture()
            patch.setattr(message_log, "log", structlog.wrap_logger(None, processors=[capture]))
            messages, start = MessageLog("client", unexpected), 0
            for size in sizes:
                messages.backend(data[start : start + size])
                start += size
            found += capture.entries
    assert len(whole) == 21
    assert split == whole


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (authentication.AuthenticationCleartextPassword(), frontend.PasswordMessage(SECRET.encode())),
        (authentication.AuthenticationMD5Password(b"salt"), frontend.PasswordMessage(SECRET.encode())),
        (
            authentication.AuthenticationSASL((b"SCRAM-SHA-256",)),
            frontend.SASLInitialResponse(b"SCRAM-SHA-256", SECRET.encode()),
        ),
        (authentication.AuthenticationSASLContinue(b"r=1"), frontend.SASLResponse(SECRET.encode())),
        (authentication.AuthenticationGSS(), frontend.GSSResponse(SECRET.encode())),
    ],
    ids=lambda message: type(message).__name__,
)
def test_answers_to_authentication_requests_are_called_what_they_are(messages, lines, request_, response):
    messages.backend(bytes(request_))
    messages.frontend(bytes(response))
    assert [line["type"] for line in lines] == [type(request_).__name__, type(response).__name__]
    assert SECRET not in repr(lines)


def test_password_that_answers_no_request_is_not_shown_either(messages, lines):
    messages.frontend(bytes(frontend.PasswordMessage(SECRET.encode())))
    messages.backend(bytes(backend.decode(ord("R"), b"\0\0\0\0")))
    assert SECRET not in repr(lines)


@pytest.mark.parametrize(("direction", "kind"), [("frontend", "CopyData"), ("backend", "CopyData")])
def test_of_a_long_message_only_type_and_length_are_logged(messages, lines, direction, kind):
    message = CopyData(b"x" * 2 * CAPACITY)
    for start in range(0, 3 * CAPACITY, 1000):
        getattr(messages, direction)(bytes(message)[start : start + 1000])
    assert seen(lines) == [(direction, kind, len(bytes(message)))]
    assert lines[0]["fields"] == ""


def test_malformed_message_has_a_line_and_the_next_one_too(messages, lines):
    messages.frontend(b"B\0\0\0\7\0\0\0" + frontend.SYNC_FRAME)
    assert [line["type"] for line in lines] == ["malformed", "Sync"]
    assert lines[0]["fields"].startswith("Bind of 3 bytes: ")


@pytest.mark.parametrize(
    "junk", [struct.pack("!ci", b"Q", -1), struct.pack("!ci", b"S", 0x7FFFFFFF), b"\xff\0\0\0\4", b"GET / HTTP/1.1"]
)
def test_bytes_that_are_no_messages_stop_the_log_with_one_line(messages, lines, junk):
    messages.frontend(junk)
    messages.frontend(frontend.SYNC_FRAME)
    messages.backend(bytes(READY))
    (line,) = lines
    assert line["event"] == "messages are not logged any longer"
    assert line["direction"] == "frontend"
    assert line["reason"]


def test_fault_in_the_log_is_reported_once_and_stops_it(lines, monkeypatch):
    def fail(*_arguments):
        raise Fault("rendering")

    faults = []
    monkeypatch.setattr(tracing, "render_frontend", fail)
    messages = MessageLog("client", lambda where, error: faults.append((where, str(error))))
    for _ in range(2):
        messages.frontend(frontend.SYNC_FRAME)
    assert faults == [("relay", "rendering")]
    assert lines == []


# Whole sessions.


class Logged:
    """How the process logs, and what it has written."""

    def __init__(self, form):
        self.form, self.stream = form, io.StringIO()

    def configure(self, level):
        logs.configure(LogSection(level=level, format=self.form), self.stream)
        # Loggers of modules are for all tests: none may keep the configuration of this one.
        structlog.configure(**structlog.get_config() | {"cache_logger_on_first_use": False})

    @property
    def text(self):
        return self.stream.getvalue()

    @property
    def lines(self):
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def debug(request):
    """`[log] level = "debug"`."""
    root, before = logging.getLogger(), structlog.get_config()
    level = root.level
    logged = Logged(getattr(request, "param", "json"))
    logged.configure("debug")
    yield logged
    structlog.configure(**before)
    root.setLevel(level)
    for handler in list(root.handlers):
        if getattr(handler, "rowtap", False):
            root.removeHandler(handler)


@pytest.mark.parametrize("debug", ["text", "json"], indirect=True)
@pytest.mark.parametrize("role", ["scram_user", "password_user", "md5_user"])
def test_session_is_logged_from_its_first_packet_and_no_value_with_it(serve, database, connect, debug, role):
    connect().execute("CREATE TABLE notes (id int, note text)")
    connect().execute(f"GRANT ALL ON notes TO {role}")
    server = serve()
    with server.connect(database, user=role, password="secret", application_name=SECRET) as connection:
        connection.execute("INSERT INTO notes VALUES (%s, %s)", (4_711_471, SECRET), prepare=True)
        assert connection.execute(f"SELECT note, '{SECRET}' FROM notes").fetchone() == (SECRET, SECRET)
        with connection.cursor().copy("COPY notes FROM STDIN") as copy:
            copy.write_row((4_711_472, SECRET))
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute(f"SELECT * FROM {SECRET}")
        connection.execute("SELECT pg_notify('channel', %s)", (SECRET,))
    assert server.wait(lambda server: server.traffic.sessions == 0)
    text = debug.text
    assert SECRET not in text
    assert SECRET.lower() not in text
    assert "4711471" not in text
    assert "4711472" not in text
    assert "SELECT" not in text.replace("SELECT 1", ""), "of SQL there are command tags alone"
    for kind in ("SSLRequest", "StartupMessage", "Query", "Parse", "Bind", "DataRow", "CopyData", "ErrorResponse"):
        assert kind in text
    if debug.form == "json":
        assert {line["direction"] for line in debug.lines if line["event"] == "message"} == {"frontend", "backend"}


def test_what_came_with_the_startup_packet_is_logged_too(serve, database, debug):
    with serve().dial() as connection:
        early = frontend.Query(b"SELECT 'early'")
        connection.sendall(startup_packet(database) + bytes(early) + frontend.TERMINATE_FRAME)
        assert b"early" in read_to_end(connection)
    types = [line.get("type") for line in debug.lines]
    assert types[:3] == ["StartupMessage", "Query", "Terminate"]


def test_cancel_request_is_logged_without_its_key(serve, debug):
    with serve().dial() as connection:
        connection.sendall(bytes(startup.CancelRequest(4711, b"Xq7k")))
        assert read_to_end(connection) == b""
    (line,) = debug.lines
    assert (line["type"], line["length"]) == ("CancelRequest", 16)
    assert "Xq7k" not in debug.text


def test_hostile_length_ends_the_log_of_the_session_and_nothing_else(serve, database, debug):
    server = serve()
    with open_session(server, database) as connection, open_session(server, database) as other:
        connection.sendall(struct.pack("!ci", b"Q", -1))
        assert read_to_end(connection) == b"", "as a server closes it"
        other.sendall(bytes(frontend.Query(b"SELECT 1")))
        read_until_ready(other)
    assert [line["event"] for line in debug.lines].count("messages are not logged any longer") == 1
    assert debug.lines[-1]["event"] == "message"


def test_no_message_is_logged_at_other_levels(serve, database, debug):
    debug.configure("info")
    with open_session(serve(), database) as connection:
        # Read once: a level that is reloaded counts for the sessions that begin then.
        debug.configure("debug")
        connection.sendall(bytes(frontend.Query(b"SELECT 1")))
        read_until_ready(connection)
    assert '"message"' not in debug.text


def test_protocol_version_and_names_of_parameters_are_shown(messages, lines):
    messages.packet(bytes(startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", SECRET.encode()),))))
    assert lines[0]["fields"] == "version=3.0 parameters=1 ['user': 9 bytes]"
