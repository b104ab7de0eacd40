"""The first bytes of a connection: requests for encryption, startup packets good and bad, what is refused and how."""

import asyncio
import socket
import struct
import tempfile
import time
from types import SimpleNamespace

import psycopg
import pytest
from structlog.testing import capture_logs

from protocol import backend, codes, startup
from proxy.config import units
from proxy.net.client_connection import Connection, _wake
from proxy.net.startup import Startup
from tests.proxy.conftest import Fault
from tests.proxy.net.bare import SELECT_1, read_to_end, startup_packet

SSL = bytes(startup.SSLRequest())
GSS = bytes(startup.GSSENCRequest())


def report(data):
    assert data[:1] == b"E", data
    found = backend.ErrorResponse.decode(data[5:])
    assert len(data) == 1 + int.from_bytes(data[1:5], "big")
    return found.severity.decode(), found.sqlstate.decode(), found.message.decode()


def packet(*pairs, version=codes.PROTOCOL_3_0):
    return bytes(startup.StartupMessage(version, tuple(pairs)))


@pytest.mark.parametrize("requests", [[], [SSL], [GSS], [SSL, GSS], [GSS, SSL]], ids=len)
def test_requests_for_encryption_are_declined_and_the_session_goes_on(serve, database, requests):
    with serve().dial() as connection:
        for request in requests:
            connection.sendall(request)
            assert connection.recv(1) == b"N"
        connection.sendall(startup_packet(database))
        assert connection.recv(1) == b"R"


@pytest.mark.parametrize(("request_", "version"), [(SSL, "1234.5679"), (GSS, "1234.5680")])
def test_same_request_twice_is_refused_as_postgresql_does(serve, postgres, request_, version):
    answers = []
    for address in (("127.0.0.1", postgres.port), ("127.0.0.1", serve().port)):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(request_)
            assert connection.recv(1) == b"N"
            connection.sendall(request_)
            answers.append(report(read_to_end(connection)))
    assert answers[0] == answers[1]
    assert version in answers[1][2]


def test_bytes_behind_a_request_for_tls_are_refused(serve, database):
    with serve().dial() as connection:
        connection.sendall(SSL + startup_packet(database))
        assert report(read_to_end(connection)) == ("FATAL", "08P01", "received unencrypted data after SSL request")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\0\0\0\0",
        b"\0\0\0\7\0\3\0",
        struct.pack("!i", -1) + b"xxxx",
        struct.pack("!i", 0x7FFFFFFF) + b"xxxx",
        struct.pack("!i", 10_005) + b"\0\3\0\0",
        b"\x16\3\1\2\0\1\0\1\xfc\3\3",  # TLS, which is not configured
        bytes(range(255, 0, -1)),
    ],
    ids=repr,
)
def test_garbage_is_closed_with_a_logged_line_and_no_answer(serve, data):
    server = serve()
    with capture_logs() as lines, server.dial() as connection:
        connection.sendall(data)
        assert read_to_end(connection) == b""
        assert server.wait(lambda server: not server._tasks)
    assert [line["event"] for line in lines] == ["connection refused"]
    assert "exc_info" not in lines[0]


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x1a" + packet((b"user", b"postgres"))[4:] + b"xxx",  # no terminator at the end
        packet((b"database", b"postgres")),  # no user
        packet((b"user", b"no such user"), (b"database", b"postgres")),
        packet((b"user", b"postgres"), (b"database", b"not there")),
        struct.pack("!ii", 8, 2 << 16),  # protocol 2.0
        struct.pack("!ii", 8, 4 << 16),
        packet((b"user", b"postgres"), (b"replication", b"perhaps")),
        struct.pack("!ii", 10_004, 3 << 16) + b"x" * 9_996,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_bad_startup_packet_is_refused_in_the_words_of_the_server(serve, postgres, data):
    answers = []
    for address in (("127.0.0.1", postgres.port), ("127.0.0.1", serve().port)):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(data)
            answers.append(read_to_end(connection))
    assert answers[0] == answers[1]
    assert b"FATAL" in answers[0]


def test_unknown_minor_version_is_negotiated_by_the_server(serve, database, postgres):
    data = packet((b"user", b"postgres"), (b"database", database.encode()), version=3 << 16 | 9999)
    answers = []
    for address in (("127.0.0.1", postgres.port), ("127.0.0.1", serve().port)):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(data)
            answers.append(connection.recv(13))
    assert answers[0] == answers[1]
    assert answers[0][:1] == b"v"


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\x30\0\3\0\0user\0"], ids=len)
def test_client_that_says_nothing_more_is_closed_in_time(serve, data):
    server = serve(client_login_timeout=0.2)
    with capture_logs() as lines, server.dial() as connection:
        connection.sendall(data)
        began = time.monotonic()
        assert read_to_end(connection) == b""
        assert 0.1 < time.monotonic() - began < 3
    assert [line["reason"] for line in lines] == ["no startup packet in time"]


def test_connection_without_a_byte_is_not_logged(serve):
    server = serve()
    with capture_logs() as lines:
        server.dial().close()
        assert server.wait(lambda server: not server._tasks)
    assert lines == []


def test_client_beyond_the_limit_is_refused_and_cancelling_still_works(serve, database):
    server = serve(max_connections=1)
    with server.connect(database) as connection:
        with pytest.raises(psycopg.OperationalError, match="sorry, too many clients already"):
            server.connect(database)
        pid = connection.info.backend_pid
        assert pid
        # Cancelling is not subject to the limit.
        connection.cancel_safe()
    assert server.wait(lambda server: server.traffic.sessions == 0)
    with server.connect(database) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_unreachable_server_is_answered_with_08006(serve, database):
    server = serve(settings={"port": 1})
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        severity, sqlstate, message = report(read_to_end(connection))
    assert (severity, sqlstate) == ("FATAL", "08006")
    assert message.startswith("could not connect to PostgreSQL at 127.0.0.1:1: ")
    assert server.wait(lambda server: server.traffic.sessions == 0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "/nonexistent"])
def test_server_without_an_address_is_answered_with_08006(serve, database, host):
    server = serve(settings={"host": host})
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        assert report(read_to_end(connection))[1] == "08006"


def test_server_that_does_not_answer_is_given_up_in_time(serve, database):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        server = serve(settings={"port": silent.getsockname()[1], "sslmode": "require", "connect_timeout": 0.2})
        with server.dial() as connection:
            connection.sendall(startup_packet(database))
            severity, sqlstate, message = report(read_to_end(connection))
    assert (severity, sqlstate) == ("FATAL", "08006")
    assert message.endswith("no answer within 0.2 s")


def test_session_passes_over_unix_sockets_on_both_sides(serve, database, postgres):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rowtap-") as directory:
        server = serve(listen=(units.address(f"{directory}:6432"),), settings={"host": str(postgres.socket_dir)})
        with psycopg.connect(f"host={directory} port=6432 user=postgres dbname={database}") as connection:
            assert connection.execute("SELECT inet_client_addr()").fetchone() == (None,)
        assert server.wait(lambda server: server.traffic.sessions == 0)


def test_cancel_requests_with_keys_of_any_length_are_closed_without_an_answer(serve):
    server = serve()
    for key in (b"1234", b"k" * 32, b"k" * 256):
        with server.dial() as connection:
            connection.sendall(bytes(startup.CancelRequest(4711, key)))
            assert read_to_end(connection) == b""
    for data in (struct.pack("!iii", 12, codes.CANCEL_REQUEST, 1), struct.pack("!ii", 8, codes.CANCEL_REQUEST)):
        with server.dial() as connection:
            connection.sendall(data)
            assert read_to_end(connection) == b""


def test_cancel_request_that_cannot_be_delivered_is_logged(serve):
    server = serve(settings={"port": 1})
    with capture_logs() as lines, server.dial() as connection:
        connection.sendall(bytes(startup.CancelRequest(4711, b"1234")))
        assert read_to_end(connection) == b""
        assert server.wait(lambda server: not server._tasks)
    assert [line["event"] for line in lines] == ["cancel request not delivered"]
    assert "connection refused" in lines[0]["reason"]


def test_client_that_ends_within_its_startup_packet_is_refused(serve, database):
    server = serve()
    with capture_logs() as lines, server.dial() as connection:
        connection.sendall(startup_packet(database)[:20])
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection) == b""
        assert server.wait(lambda server: not server._tasks)
    assert [line["reason"] for line in lines] == ["closed within the startup packet"]
    assert server.call(lambda: server.server.traffic.refused) == {"garbage": 1}


def test_client_that_ends_after_a_request_for_encryption_is_answered(serve):
    with serve().dial() as connection:
        connection.sendall(SSL)
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection) == b"N"


def test_login_that_is_cut_while_postgresql_is_dialled_leaves_no_session(serve, database):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = serve(settings={"port": silent.getsockname()[1], "sslmode": "require"})
        with server.dial() as connection:
            connection.sendall(startup_packet(database))
            assert server.wait(lambda server: server.traffic.sessions == 1)
            server.run(server.server.close())
            assert read_to_end(connection) == b""
    assert server.server.traffic.sessions == 0


def test_fault_while_a_session_begins_is_reported_and_cuts_it(serve, database, monkeypatch):
    def fail(*_arguments):
        raise Fault("startup")

    monkeypatch.setattr(Startup, "frontend", fail)
    server = serve()
    with server.dial() as connection:
        connection.sendall(startup_packet(database) + SELECT_1)
        assert read_to_end(connection) == b""
    assert server.fault()[0] == "relay"
    assert server.wait(lambda server: server.traffic.sessions == 0 and server._connections == 0)


class Stub:
    """As much of a server as a connection needs that is refused."""

    def on_internal_error(self, where, error):
        raise error


def test_refusal_to_a_client_that_is_gone_is_dropped():
    ours, theirs = socket.socketpair()
    theirs.close()
    connection = Connection(Stub(), ours, "client")  # type: ignore[arg-type]  # as much of a server as is used
    with capture_logs() as lines:
        connection._reply(b"too late")
    assert [line["reason"] for line in lines] == ["broken pipe"]
    connection._pending = SimpleNamespace(lost=True, transport=ours)  # type: ignore[assignment]  # no event loop runs
    connection._reply(b"too late")
    connection._close()


async def test_readable_socket_wakes_a_login_once():
    readable = asyncio.get_running_loop().create_future()
    _wake(readable)
    _wake(readable)
    assert readable.result() is None
