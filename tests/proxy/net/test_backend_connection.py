"""Reaching PostgreSQL: every address of a name, refusals in words, TLS answers no server should give."""

import asyncio
import socket

import pytest

from protocol import codes, startup
from proxy.config.sections import PostgresSection
from proxy.net import tls
from proxy.net.backend_connection import Backend, ServerAddress, UnreachableError, receive

PACKET = bytes(startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"postgres"),)))


def backend(**settings):
    section = PostgresSection().model_copy(update={"host": "127.0.0.1"} | settings)
    return Backend(section, tls.backend_context(section))


async def closing(found):
    found.waiting.transport.abort()
    await asyncio.sleep(0.01)


async def test_the_first_address_that_answers_is_taken(postgres, monkeypatch):
    target = backend(port=postgres.port)
    addresses = [
        ServerAddress(socket.AF_INET, ("127.0.0.1", 1)),
        ServerAddress(socket.AF_INET, ("127.0.0.1", postgres.port)),
    ]

    async def both():
        return addresses

    monkeypatch.setattr(target, "_addresses", both)
    found = await target.connect(PACKET)
    assert found.address == addresses[1]
    assert not found.secure
    await closing(found)


async def test_every_reason_is_named_once(monkeypatch):
    target = backend(port=1)

    async def both():
        return [ServerAddress(socket.AF_INET, ("127.0.0.1", 1)), ServerAddress(socket.AF_INET, ("127.0.0.1", 2))]

    monkeypatch.setattr(target, "_addresses", both)
    with pytest.raises(
        UnreachableError, match=r"could not connect to PostgreSQL at 127\.0\.0\.1:1: connection refused$"
    ):
        await target.connect(PACKET)


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


async def test_receive_takes_exactly_what_it_is_asked_for():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(b"abcdef")
        assert await receive(ours, 4) == b"abcd"
        assert ours.recv(10) == b"ef"
        theirs.close()
        with pytest.raises(ConnectionResetError):
            await receive(ours, 1)


async def test_a_cancel_request_is_delivered_and_waited_for(postgres):
    await asyncio.wait_for(backend(port=postgres.port).cancel(bytes(startup.CancelRequest(1, b"none"))), 5)
