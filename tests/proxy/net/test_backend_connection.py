"""A session's way to PostgreSQL: which attempts sslmode allows, TLS answers no server should give, cancelling."""

import asyncio

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
async def test_answers_to_a_request_for_tls_that_no_postgresql_gives(answer):
    async def serve(reader, writer):
        await reader.read(8)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError, match=r"gave no answer PostgreSQL would|the connection was closed"):
            await backend(port=port, sslmode="require").connect(PACKET)


async def test_bytes_behind_the_answer_to_a_request_for_tls_are_not_taken_for_decrypted_ones():
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


async def test_a_cancel_request_is_delivered_and_waited_for(postgres):
    await asyncio.wait_for(backend(port=postgres.port).cancel(bytes(startup.CancelRequest(1, b"none"))), 5)
