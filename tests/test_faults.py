"""tests/fix_faults.py does to a connection exactly what it is told to; the tests of the proxy rely on that."""

import contextlib
import socket
import threading

import psycopg
import pytest

from proxy.demo.servers import HOST, free_port


@pytest.fixture
def echo():
    """A server that sends back what it receives, and closes a connection when the client does: (host, port)."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=answer, args=(client,)))
                threads[-1].start()

    def answer(client):
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                client.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[:2]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for thread in threads:
        thread.join()


@pytest.fixture
def link(echo, faulty):
    return faulty(*echo)


@pytest.fixture
def client(link):
    with socket.create_connection((link.host, link.port), timeout=5) as connection:
        yield connection


def read_all(client):
    return b"".join(iter(lambda: client.recv(65536), b""))


def read(client, size):
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


@pytest.mark.parametrize("chunk", [None, 1, 2, 7])
def test_all_bytes_arrive_in_order_for_every_chunk_size(link, client, chunk):
    link.to_server.chunk = link.to_client.chunk = chunk
    message = bytes(range(256)) * 8
    client.sendall(message)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == message


def test_each_chunk_with_a_delay_arrives_as_one_segment(link, client):
    link.to_client.chunk, link.to_client.delay = 3, 0.1
    client.sendall(b"abcdefgh")
    assert [client.recv(100) for _ in range(3)] == [b"abc", b"def", b"gh"]


def test_cut_by_close_passes_exactly_the_bytes_before_it(link, client):
    link.to_client.cut_after = 5
    client.sendall(b"abcdefgh")
    assert read_all(client) == b"abcde"


def test_cut_by_reset_raises_connection_reset_at_the_client(link, client):
    link.to_server.cut_after, link.to_server.cut = 5, "reset"
    client.sendall(b"abcde")
    assert read(client, 5) == b"abcde"
    client.sendall(b"f")
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_cut_by_half_close_leaves_the_other_direction_open(link, client):
    link.to_client.cut_after, link.to_client.cut = 5, "half-close"
    client.sendall(b"abcdefgh")
    assert read_all(client) == b"abcde"
    client.sendall(b"still taken")


def test_cut_by_stall_leaves_the_connection_open(link, client):
    link.to_client.cut_after, link.to_client.cut = 5, "stall"
    client.sendall(b"abcdefgh")
    assert read(client, 5) == b"abcde"
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(100)


def test_stalled_direction_passes_bytes_after_go(link, client):
    link.to_server.stall()
    client.sendall(b"abc")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(100)
    link.to_server.go()
    client.settimeout(5)
    assert read(client, 3) == b"abc"


def test_reset_and_drop_end_open_connections(link, client):
    client.sendall(b"a")
    assert client.recv(1) == b"a"
    link.drop()
    assert client.recv(1) == b""
    with socket.create_connection((link.host, link.port), timeout=5) as other:
        other.sendall(b"a")
        assert other.recv(1) == b"a"
        link.reset()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
    assert link.accepted == 2


def test_refuse_refuses_new_connections_and_keeps_open_ones(link, client):
    client.sendall(b"a")
    assert client.recv(1) == b"a"
    link.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((link.host, link.port), timeout=5)
    client.sendall(b"b")
    assert client.recv(1) == b"b"


def test_client_is_reset_when_the_target_is_down(faulty):
    link = faulty(HOST, free_port())
    # The reset may come before connect has returned.
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection((link.host, link.port), timeout=5) as client,
    ):
        client.recv(1)


def test_postgres_works_through_a_link_that_splits_at_every_byte(postgres, database, faulty):
    link = faulty(postgres.host, postgres.port)
    link.to_server.chunk = link.to_client.chunk = 1
    with psycopg.connect(postgres.dsn(database, host=link.host, port=link.port)) as connection:
        assert connection.execute("SELECT repeat('x', 300)").fetchone() == ("x" * 300,)
