"""The first bytes of a connection: requests for encryption, startup packets good and bad, what is refused and how."""

import socket
import struct
import tempfile
import time

import psycopg
import pytest
from structlog.testing import capture_logs

from protocol import backend, codes, startup
from proxy.config import units

SSL = bytes(startup.SSLRequest())
GSS = bytes(startup.GSSENCRequest())


def read_to_end(connection):
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def report(data):
    assert data[:1] == b"E", data
    found = backend.ErrorResponse.decode(data[5:])
    assert len(data) == 1 + int.from_bytes(data[1:5], "big")
    return found.severity.decode(), found.sqlstate.decode(), found.message.decode()


def packet(*pairs, version=codes.PROTOCOL_3_0):
    return bytes(startup.StartupMessage(version, tuple(pairs)))


def greeting(database):
    return packet((b"user", b"postgres"), (b"database", database.encode()))


@pytest.mark.parametrize("requests", [[], [SSL], [GSS], [SSL, GSS], [GSS, SSL]], ids=len)
def test_requests_for_encryption_are_declined_and_the_session_goes_on(serve, database, requests):
    with serve().dial() as connection:
        for request in requests:
            connection.sendall(request)
            assert connection.recv(1) == b"N"
        connection.sendall(greeting(database))
        assert connection.recv(1) == b"R"


@pytest.mark.parametrize(("request_", "version"), [(SSL, "1234.5679"), (GSS, "1234.5680")])
def test_the_same_request_twice_is_refused_as_postgresql_does(serve, postgres, request_, version):
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
        connection.sendall(SSL + greeting(database))
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
        packet((b"user", b"nobody at all"), (b"database", b"postgres")),
        packet((b"user", b"postgres"), (b"database", b"not there")),
        struct.pack("!ii", 8, 2 << 16),  # protocol 2.0
        struct.pack("!ii", 8, 4 << 16),
        packet((b"user", b"postgres"), (b"replication", b"perhaps")),
        struct.pack("!ii", 10_004, 3 << 16) + b"x" * 9_996,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_the_server_refuses_what_it_can_in_its_own_words(serve, postgres, data):
    answers = []
    for address in (("127.0.0.1", postgres.port), ("127.0.0.1", serve().port)):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(data)
            answers.append(read_to_end(connection))
    assert answers[0] == answers[1]
    assert b"FATAL" in answers[0]


def test_an_unknown_minor_version_is_negotiated(serve, database, postgres):
    data = packet((b"user", b"postgres"), (b"database", database.encode()), version=3 << 16 | 9999)
    answers = []
    for address in (("127.0.0.1", postgres.port), ("127.0.0.1", serve().port)):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(data)
            answers.append(connection.recv(13))
    assert answers[0] == answers[1]
    assert answers[0][:1] == b"v"


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\x30\0\3\0\0user\0"], ids=len)
def test_a_client_that_says_nothing_more_is_closed_in_time(serve, data):
    server = serve(client_login_timeout=0.2)
    with capture_logs() as lines, server.dial() as connection:
        connection.sendall(data)
        began = time.monotonic()
        assert read_to_end(connection) == b""
        assert 0.1 < time.monotonic() - began < 3
    assert [line["reason"] for line in lines] == ["no startup packet in time"]


def test_a_port_check_is_not_worth_a_line(serve):
    server = serve()
    with capture_logs() as lines:
        server.dial().close()
        assert server.wait(lambda server: not server._tasks)
    assert lines == []


def test_too_many_clients(serve, database):
    server = serve(max_connections=1)
    with server.connect(database) as connection:
        with pytest.raises(psycopg.OperationalError, match="sorry, too many clients already"):
            server.connect(database)
        pid = connection.info.backend_pid
        assert pid
        # A full house must not keep anybody from cancelling.
        connection.cancel_safe()
    assert server.wait(lambda server: server.traffic.sessions == 0)
    with server.connect(database) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_unreachable_server_is_answered_with_08006(serve, database):
    server = serve(settings={"port": 1})
    with server.dial() as connection:
        connection.sendall(greeting(database))
        severity, sqlstate, message = report(read_to_end(connection))
    assert (severity, sqlstate) == ("FATAL", "08006")
    assert message.startswith("could not connect to PostgreSQL at 127.0.0.1:1: ")
    assert server.wait(lambda server: server.traffic.sessions == 0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "/nonexistent"])
def test_a_server_that_has_no_such_address(serve, database, host):
    server = serve(settings={"host": host})
    with server.dial() as connection:
        connection.sendall(greeting(database))
        assert report(read_to_end(connection))[1] == "08006"


def test_a_server_that_does_not_answer_at_all(serve, database):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        server = serve(settings={"port": silent.getsockname()[1], "sslmode": "require", "connect_timeout": 0.2})
        with server.dial() as connection:
            connection.sendall(greeting(database))
            severity, sqlstate, message = report(read_to_end(connection))
    assert (severity, sqlstate) == ("FATAL", "08006")
    assert message.endswith("no answer within 0.2 s")


def test_unix_sockets_on_both_sides(serve, database, postgres):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rowtap-") as directory:
        server = serve(listen=(units.address(f"{directory}:6432"),), settings={"host": str(postgres.socket_dir)})
        with psycopg.connect(f"host={directory} port=6432 user=postgres dbname={database}") as connection:
            assert connection.execute("SELECT inet_client_addr()").fetchone() == (None,)
        assert server.wait(lambda server: server.traffic.sessions == 0)


def test_cancel_requests_of_any_kind_are_taken_and_closed(serve):
    server = serve()
    for key in (b"1234", b"k" * 32, b"k" * 256):
        with server.dial() as connection:
            connection.sendall(bytes(startup.CancelRequest(4711, key)))
            assert read_to_end(connection) == b""
    for data in (struct.pack("!iii", 12, codes.CANCEL_REQUEST, 1), struct.pack("!ii", 8, codes.CANCEL_REQUEST)):
        with server.dial() as connection:
            connection.sendall(data)
            assert read_to_end(connection) == b""
