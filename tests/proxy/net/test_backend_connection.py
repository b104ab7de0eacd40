"""A session's way to PostgreSQL: which attempts sslmode allows, TLS answers no server should give, cancelling."""

import asyncio
import socket

import pytest

from protocol import codes, startup
from proxy.config.sections import PostgresSection
from proxy.net import tls
from proxy.net.backend_connection import Backend
from proxy.net.dial import UnreachableError

PACKET = bytes(startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"postgres"),)))


def backend(**settings):
    section = PostgresSection().model_copy(update={"host": "127.0.0.1"} | settings)
    return Backend(section, tls.backend_context(section))


async def closing(found):
    found.pending.transport.abort()
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [b"E", b"H", b""])
async def test_answer_to_a_request_for_tls_that_postgresql_never_gives_is_refused(answer):
    async def serve(reader, writer):
        await reader.read(8)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError, match=r"gave no answer PostgreSQL would|the connection was closed"):
            await backend(port=port, sslmode="require").connect(PACKET)


async def test_bytes_behind_the_answer_to_a_request_for_tls_are_not_taken_for_decrypted():
    async def serve(reader, writer):
        await reader.read(8)
        writer.write(b"S" + b"R\0\0\0\x08\0\0\0\0")
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError, match="TLS failed"):
            await backend(port=port, sslmode="require").connect(PACKET)


async def test_cancel_request_is_delivered_and_waited_for(postgres):
    await asyncio.wait_for(backend(port=postgres.port).cancel(bytes(startup.CancelRequest(1, b"none"))), 5)


@pytest.fixture
def silent():
    """The port of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_server_that_keeps_clients_waiting_has_not_refused_the_first_attempt(silent):
    found = await backend(port=silent, sslmode="allow", connect_timeout=0.05).connect(PACKET)
    assert not found.secure
    await closing(found)


async def test_connect_that_is_cancelled_closes_its_socket(silent):
    connecting = asyncio.create_task(backend(port=silent, sslmode="require").connect(PACKET))
    await asyncio.sleep(0.05)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
