"""Bytes that no correct client or server sends: no traceback, no growth of memory, no effect on other sessions, and
tables whose session cannot be followed are flushed."""

import contextlib
import random
import socket
import struct

import pytest

from protocol import backend, codes, frontend, startup
from tests.depth import depth, patient
from tests.e2e.processes import MIB, needs_proc, resident, wait_until
from tests.e2e.raw_sessions import log_in, read_to_end, start_packet, values
from tests.script import READY, Client, FakeServer

pytestmark = pytest.mark.measured

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
NAMES = (b"Q", b"P", b"B", b"D", b"E", b"C", b"S", b"H", b"F", b"d", b"c", b"f", b"X", b"p")


def end_of_stream(connection):
    """Close the sending direction; the other side may have closed the connection already."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def frame(kind, length, body=b""):
    """A message with any length field."""
    return kind + struct.pack("!i", length) + body


@pytest.fixture
def table(connect):
    connection = connect()
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connection.execute("INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace')")
    return connection


@pytest.fixture
def proxy(rowtap, table):
    return rowtap([USERS])


@pytest.fixture
def other(proxy):
    """A session that existed before and must not be affected."""
    with log_in(proxy) as client:
        yield client


def connect_socket(proxy):
    """A TCP connection, with a timeout for a busy machine."""
    return socket.create_connection((proxy.host, proxy.port), 60)


def warm(proxy, redis_client):
    """Read until both keys are in Redis."""
    with log_in(proxy) as client:

        def read():
            client.query("SELECT id, name FROM users")
            proxy.settle()
            return redis_client.get("users:1") is not None and redis_client.get("users:2") is not None

        wait_until(read, pause=0.05)


def check_unaffected(proxy, other):
    """The other session, and a new one, work as before."""
    assert other.query("SELECT 1")[-1] == READY
    with log_in(proxy) as newcomer:
        assert values(newcomer.query("SELECT 2")) == [[b"2"]]


# Clients.

FRAMES = {
    "negative length": frame(b"Q", -1),
    "length 0": frame(b"Q", 0),
    "length 3": frame(b"Q", 3),
    "2 GiB": frame(b"Q", 0x7FFFFFFF, b"SELECT 1\0"),
    "2 GiB of a short kind": frame(b"S", 0x7FFFFFFF),
    "the smallest length": frame(b"Q", -0x80000000),
    "unknown type": frame(b"\xff", 4),
    "type 0": frame(b"\0", 4),
    "a server's type": frame(b"Z", 5, b"I"),
    "a long Sync": frame(b"S", 10_000_000, b"x" * 1000),
    "Bind without its end": frame(b"B", 8, b"\0\0\0\xff"),
    "Parse without NUL": frame(b"P", 8, b"abcd"),
    "Bind with more parameters than bytes": frame(b"B", 12, b"\0\0\0\0\xff\xff\0\0"),
    "a parameter longer than its message": frame(b"B", 16, b"\0\0\0\0\0\1\x7f\xff\xff\xff\0\0"),
    "Query without NUL": frame(b"Q", 12, b"SELECT 1"),
    "Query with two strings": frame(b"Q", 22, b"SELECT 1\0SELECT 2\0"),
    "Describe of nothing": frame(b"D", 4),
    "Execute cut short": frame(b"E", 6, b"\0\0"),
    "Function call of nothing": frame(b"F", 4),
    "CopyData outside COPY": frame(b"d", 8, b"data"),
    "password at the wrong time": frame(b"p", 8, b"abc\0"),
}


def test_invalid_client_frames_affect_no_other_session(proxy, other, table, redis_client):
    """Each frame alone, then each behind an UPDATE whose outcome is not known yet."""
    for junk in FRAMES.values():
        with log_in(proxy) as client:
            client.send(junk)
            client.half_close()
            read_to_end(client.socket)
    check_unaffected(proxy, other)
    for junk in FRAMES.values():
        warm(proxy, redis_client)
        with log_in(proxy) as client:
            client.send(frontend.Query(b"UPDATE users SET name = name || '.' WHERE id = 1"), junk)
            client.half_close()
            read_to_end(client.socket)
        wait_until(lambda: proxy.status()["sessions"] == 1)
        proxy.settle()
        ((name,),) = table.execute("SELECT name FROM users WHERE id = 1").fetchall()
        assert redis_client.get("users:1") in (None, name.encode())
    check_unaffected(proxy, other)


def test_session_with_an_unknown_message_goes_blind_and_flushes(proxy, table, redis_client):
    """The tables the blind session might have written are flushed."""
    warm(proxy, redis_client)
    before = proxy.sessions_blinded()
    with log_in(proxy) as client:
        client.query("SELECT id, name FROM users")
        # The server ignores CopyDone and CopyFail outside COPY; so must the proxy.
        client.send(
            frame(b"c", 4), frame(b"f", 5, b"\0"), frontend.Query(b"UPDATE users SET name = 'new' WHERE id = 1")
        )
        client.receive_until(backend.ReadyForQuery)
    proxy.settle()
    assert redis_client.get("users:1") in (None, b"new")
    with log_in(proxy) as client:
        client.send(frame(b"\xfe", 4))
        read_to_end(client.socket)
    wait_until(lambda: proxy.status()["sessions"] == 0)
    proxy.settle()
    assert proxy.sessions_blinded() >= before + 1
    assert redis_client.keys("users:*") == []
    assert proxy.log_text().count("session goes blind") >= 1


@patient
@needs_proc
def test_dialogue_truncated_by_the_client_at_any_byte_leaves_no_stale_key(proxy, other, table, redis_client):
    """A whole dialogue, cut off after each of its bytes."""
    warm(proxy, redis_client)
    bind = frontend.Bind(b"", b"", (), [b"1"], ())
    dialogue = start_packet(
        proxy.database,
        frontend.Query(b"SELECT 1"),
        frontend.Parse(b"", b"UPDATE users SET name = name || '!' WHERE id = $1", ()),
        bind,
        frontend.Describe(b"P"[0], b""),
        frontend.Execute(b"", 0),
        frontend.Sync(),
        frontend.Terminate(),
    )
    before = None
    step = depth(3, 1)
    for end in range(0, len(dialogue) + 1, step):
        with connect_socket(proxy) as connection:
            connection.sendall(dialogue[:end])
            end_of_stream(connection)
            read_to_end(connection)
        if end > 40 and before is None:
            before = resident(proxy.pid)
    wait_until(lambda: proxy.status()["sessions"] == 1)
    proxy.settle()
    ((name,),) = table.execute("SELECT name FROM users WHERE id = 1").fetchall()
    assert name.startswith("Ada")
    assert redis_client.get("users:1") in (None, name.encode())
    assert resident(proxy.pid) - before < 4 * MIB
    check_unaffected(proxy, other)


STARTUPS = {
    "NUL within the user": b"user\0po\0stgres\0\0",
    "a name without a value": b"user\0postgres\0database\0",
    "no end": b"user\0postgres",
    "nothing": b"",
    "only the end": b"\0",
    "empty user": b"user\0\0\0",
    "not UTF-8": b"user\0\xff\xfe\0\0",
    "behind the end": b"user\0postgres\0\0more",
    "a thousand parameters": b"user\0postgres\0" + b"".join(b"_pq_.x%d\0y\0" % n for n in range(700)) + b"\0",
    "replication in a strange way": b"user\0postgres\0replication\0perhaps\0\0",
}


def test_invalid_startup_packets_affect_no_other_session(proxy, other):
    for body in STARTUPS.values():
        for version in (codes.PROTOCOL_3_0, 0x0003_0063, 0x0002_0000, 0x0063_0000):
            with connect_socket(proxy) as connection:
                connection.sendall(struct.pack("!ii", len(body) + 8, version) + body)
                end_of_stream(connection)
                read_to_end(connection)
    for length in (-1, 0, 3, 4, 7, 10_001, 0x7FFFFFFF, -0x80000000):
        with connect_socket(proxy) as connection:
            connection.sendall(struct.pack("!ii", length, codes.PROTOCOL_3_0) + b"user\0postgres\0\0")
            end_of_stream(connection)
            read_to_end(connection)
    check_unaffected(proxy, other)


@patient
@needs_proc
def test_random_client_bytes_affect_no_other_session(proxy, other, table, redis_client):
    """Random bytes before and after the login; some begin like messages."""
    chance = random.Random(20_240_229)

    def play(count):
        for number in range(count):
            junk = chance.randbytes(chance.randrange(1, 3000))
            with connect_socket(proxy) as connection, contextlib.suppress(OSError):
                if number % 2:
                    connection.sendall(start_packet(proxy.database))
                    junk = chance.choice(NAMES) + struct.pack("!i", chance.randrange(0, 5000)) + junk
                connection.sendall(junk)
                end_of_stream(connection)
                read_to_end(connection)

    play(100)
    before = resident(proxy.pid)
    play(depth(300, 20_000))
    wait_until(lambda: proxy.status()["sessions"] == 1)
    assert resident(proxy.pid) - before < 4 * MIB
    check_unaffected(proxy, other)
    proxy.settle()
    names = dict(table.execute("SELECT id, name FROM users").fetchall())
    for number, name in names.items():
        assert redis_client.get(f"users:{number}") in (None, name.encode())


# Servers.

ROW = backend.RowDescription((backend.FieldDescription(b"id", 0, 0, 23, 4, -1, 0),))
ANSWERS = {
    "negative length": frame(b"D", -1),
    "length 3": frame(b"T", 3),
    "2 GiB": frame(b"D", 0x7FFFFFFF, b"\0\1"),
    "unknown type": frame(b"\xff", 4),
    "a client's type": frame(b"Q", 13, b"SELECT 1\0"),
    "ReadyForQuery of a strange status": frame(b"Z", 5, b"?"),
    "a long ReadyForQuery": frame(b"Z", 6, b"II"),
    "RowDescription cut short": frame(b"T", 7, b"\0\1i"),
    "RowDescription with a negative count": frame(b"T", 6, b"\xff\xff"),
    "DataRow without a RowDescription": bytes(backend.DataRow([b"1"])) + bytes(READY),
    "DataRow with a value beyond its end": bytes(ROW) + frame(b"D", 10, b"\0\1\x7f\xff\xff\xff"),
    "DataRow with a length of -2": bytes(ROW) + frame(b"D", 10, b"\0\1\xff\xff\xff\xfe"),
    "CommandComplete without NUL": bytes(ROW) + frame(b"C", 8, b"SELE"),
    "an answer without a request": bytes(READY) + bytes(READY) + bytes(READY),
    "BindComplete to a Query": frame(b"2", 4),
    "authentication once more": frame(b"R", 8, b"\0\0\0\3"),
    "CopyOutResponse with nothing in it": frame(b"H", 4),
    "an error without an end": frame(b"E", 9, b"SFATA"),
    "random": random.Random(7).randbytes(500),
}


def is_probe(peer):
    """Whether the connection is the proxy's check that the server accepts connections."""
    return not peer.socket.recv(1, socket.MSG_PEEK)


def fake_server(script):
    """A server that accepts any client and follows `script(peer)` from the first Query on. It refuses the proxy's
    injected queries, which use the extended protocol."""

    def play(peer):
        if is_probe(peer) or not isinstance(peer.accept_login(), startup.StartupMessage):
            return
        asked = False
        while not isinstance(message := peer.receive(), frontend.Query):
            asked = asked or isinstance(message, frontend.Parse)
            if isinstance(message, frontend.Sync):
                refusal = backend.ErrorResponse.of("ERROR", "42501", "permission denied")
                peer.send(refusal if asked else backend.CloseComplete(), READY)
                asked = False
        script(peer)

    return FakeServer(play)


@pytest.mark.parametrize("ending", ["close", "stay"])
def test_invalid_server_answers_are_relayed_and_the_proxy_goes_on(rowtap, ending):
    """Every byte of them arrives at the client, and the process shrugs."""
    junk = iter(ANSWERS.values())

    def script(peer):
        peer.socket.sendall(next(junk))
        if ending == "stay":
            peer.socket.recv(1000)

    with fake_server(script) as server:
        proxy = rowtap([USERS], {"postgres": {"host": server.host, "port": server.port}})
        for name in ANSWERS:
            with Client(proxy.host, proxy.port) as client:
                client.log_in("postgres", proxy.database)
                client.send(frontend.Query(b"SELECT id, name FROM users"))
                expected = ANSWERS[name]
                received = b""
                while len(received) < len(expected) and (chunk := client.socket.recv(65536)):
                    received += chunk
                assert received == expected
        wait_until(lambda: proxy.status()["sessions"] == 0)
        proxy.settle()


@patient
def test_answer_truncated_by_the_server_at_any_byte_leaves_no_stale_key(rowtap, faulty, postgres, table, redis_client):
    """The client receives the bytes before the cut, then the end of the stream."""
    link = faulty(postgres.host, postgres.port)
    proxy = rowtap([USERS], {"postgres": {"host": link.host, "port": link.port}})
    statement = (
        b"UPDATE users SET name = CASE name WHEN 'Ada' THEN 'Eva' ELSE 'Ada' END WHERE id = 1 RETURNING id, name"
    )
    request = start_packet(proxy.database, frontend.Query(statement))

    def answer():
        with connect_socket(proxy) as connection:
            connection.sendall(request)
            end_of_stream(connection)
            return read_to_end(connection)

    whole = len(answer())
    assert whole > 400
    # The answer to the injected catalog query comes in between; the client does not receive it.
    for cut in range(0, whole + 400, depth(11, 1)):
        link.to_client.cut_after = cut
        link.to_client.cut = "reset" if cut % 2 else "close"
        assert len(answer()) <= whole
    link.to_client.cut_after = None
    wait_until(lambda: proxy.status()["sessions"] == 0)
    proxy.settle()
    ((name,),) = table.execute("SELECT name FROM users WHERE id = 1").fetchall()
    assert name in ("Ada", "Eva")
    assert redis_client.get("users:1") in (None, name.encode())
    assert len(answer()) == whole


def test_invalid_server_startup_is_relayed_and_ends_the_session(rowtap):
    """Not one of them hangs a client or harms another."""
    openings = [
        frame(b"R", -1),
        frame(b"R", 4),
        frame(b"R", 0x7FFFFFFF),
        frame(b"R", 12, b"\0\0\0\x0a"),
        frame(b"K", 8, b"\0\0\0\1"),
        frame(b"S", 8, b"abcd"),
        frame(b"\xff", 4),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ]
    left = iter(openings)

    def script(peer):
        if is_probe(peer):
            return
        packet = peer.read_packet()
        while isinstance(packet, startup.SSLRequest | startup.GSSENCRequest):
            peer.send(b"N")
            packet = peer.read_packet()
        peer.socket.sendall(next(left))
        with contextlib.suppress(TimeoutError):
            peer.socket.settimeout(0.2)
            while peer.socket.recv(1000):
                pass

    with FakeServer(script) as server:
        settings = {"host": server.host, "port": server.port, "connect_timeout": "2s", "sslmode": "disable"}
        proxy = rowtap([USERS], {"postgres": settings})
        for opening in openings:
            with connect_socket(proxy) as connection:
                connection.sendall(start_packet(proxy.database))
                found = read_to_end(connection)
                assert found[: len(opening)] == opening
        wait_until(lambda: proxy.status()["sessions"] == 0)


def test_invalid_answer_to_ssl_request_is_refused_with_08006(rowtap):
    answers = (b"", b"E", b"X", b"S" + b"garbage" * 100, b"N")
    left = iter(answers)

    def script(peer):
        if not is_probe(peer):
            peer.read_packet()
            peer.socket.sendall(next(left))

    with FakeServer(script) as server:
        settings = {"host": server.host, "port": server.port, "sslmode": "require", "connect_timeout": "2s"}
        proxy = rowtap(config={"postgres": settings})
        for _ in answers:
            with connect_socket(proxy) as connection:
                connection.sendall(start_packet("postgres"))
                assert b"C08006\0" in read_to_end(connection)
