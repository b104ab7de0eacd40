"""The fake peers of tests/script.py, used against each other and against PostgreSQL."""

import pytest

from protocol import backend, codes, frontend, startup
from tests.script import READY, Client, FakeServer


def test_fake_client_completes_a_query_at_postgres(postgres, database):
    with Client(postgres.host, postgres.port) as client:
        client.log_in("postgres", database)
        client.send(frontend.Query(b"SELECT 1"))
        client.expect(backend.RowDescription, backend.DataRow([b"1"]), backend.CommandComplete(b"SELECT 1"), READY)
        assert [type(message) for message in client.query("SELECT nothing")] == [
            backend.ErrorResponse,
            backend.ReadyForQuery,
        ]
        client.expect_silence(0.05)
        client.send(frontend.Terminate())
        client.expect_end()


def play(peer):
    packet = peer.accept_login(backend.ParameterStatus(b"server_version", b"18.6"))
    assert isinstance(packet, startup.StartupMessage)
    peer.expect(frontend.Query(b"SELECT 1"))
    peer.send(backend.CommandComplete(b"SELECT 0"), b"Z\0\0\0\x05T")
    peer.expect_end()


def test_fake_client_completes_a_query_at_the_fake_server():
    with FakeServer(play) as server, Client(server.host, server.port) as client:
        client.send(startup.SSLRequest())
        client.expect_bytes(b"N")
        client.log_in("me", "db")
        client.send(frontend.Query(b"SELECT 1"))
        client.expect(backend.CommandComplete, backend.ReadyForQuery(codes.IN_TRANSACTION))
        client.half_close()
        client.expect_end()


def test_mismatch_fails_with_the_messages_so_far():
    def say_ready(peer):
        peer.accept_login()
        peer.send(READY)

    with FakeServer(say_ready) as server, Client(server.host, server.port) as client:
        client.log_in("me", "db")
        with pytest.raises(
            pytest.fail.Exception, match=r"(?s)expected ParseComplete.*→ StartupMessage.*← ReadyForQuery"
        ):
            client.expect(backend.ParseComplete)


def test_early_end_of_the_stream_fails():
    with FakeServer(lambda peer: peer.accept_login()) as server, Client(server.host, server.port) as client:
        client.log_in("me", "db")
        with pytest.raises(pytest.fail.Exception, match="the stream ended; 0 bytes of 5 are here"):
            client.receive()


def test_failure_in_the_servers_script_is_raised_by_the_block():
    server = FakeServer(lambda peer: peer.expect(frontend.Sync))

    def send_the_wrong_thing():
        with server, Client(server.host, server.port) as client:
            client.send(frontend.Flush())
            client.expect_end()

    with pytest.raises(pytest.fail.Exception, match="expected Sync"):
        send_the_wrong_thing()
