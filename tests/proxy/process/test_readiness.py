"""Whether PostgreSQL can be reached: asked for real, not too often, and never for long."""

import asyncio
import contextlib
import socket
import time

import pytest

from proxy.config.sections import PostgresSection
from proxy.demo.servers import HOST, free_port
from proxy.process import readiness
from proxy.process.readiness import Readiness


def asking(port, host=HOST):
    return Readiness(PostgresSection(host=host, port=port))


@contextlib.asynccontextmanager
async def listener():
    """A port, and the times a connection was made to it."""
    times: list[float] = []

    def accepted(_reader, writer):
        times.append(time.monotonic())
        writer.close()

    server = await asyncio.start_server(accepted, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], times


async def test_reachable_postgresql_is_ready(postgres):
    assert await asking(postgres.port).why_not() is None


async def test_reachable_unix_socket_is_ready(postgres):
    assert await asking(postgres.port, str(postgres.socket_dir)).why_not() is None


async def test_refused_connection_is_named_with_its_reason(tmp_path):
    port = free_port()
    why_not = await asking(port).why_not()
    assert why_not is not None
    assert why_not == f"could not connect to PostgreSQL at {HOST}:{port}: connection refused"
    why_not = await asking(port, str(tmp_path)).why_not()
    assert why_not is not None
    assert str(tmp_path) in why_not
    assert "no such file" in why_not


async def test_name_that_does_not_resolve_is_named():
    why_not = await asking(5432, "host.invalid").why_not()
    assert why_not is not None
    assert why_not.startswith("could not connect to PostgreSQL at host.invalid:5432: ")
    assert "\n" not in why_not


@pytest.mark.skipif(not hasattr(socket, "SO_INCOMING_CPU"), reason="a full accept queue drops SYNs on Linux alone")
async def test_server_that_does_not_answer_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(readiness, "PATIENCE", 0.2)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((HOST, 0))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        why_not = await asking(full.getsockname()[1]).why_not()
    assert why_not is not None
    assert why_not.endswith("no answer within 0.2 s")
    assert time.monotonic() - began < 2


async def test_answer_is_asked_for_once_while_it_is_fresh(monkeypatch):
    async with listener() as (port, times):
        found = asking(port)
        assert await asyncio.gather(*(found.why_not() for _ in range(20))) == [None] * 20
        await asyncio.sleep(0.05)
        assert len(times) == 1
        monkeypatch.setattr(readiness, "FRESH", 0.0)
        await found.why_not()
        await asyncio.sleep(0.05)
        assert len(times) == 2


async def test_answer_follows_a_server_that_goes_and_comes_back(monkeypatch):
    monkeypatch.setattr(readiness, "FRESH", 0.0)
    port = free_port()
    found = asking(port)
    assert await found.why_not() is not None
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), HOST, port):
        assert await found.why_not() is None
    assert await found.why_not() is not None
