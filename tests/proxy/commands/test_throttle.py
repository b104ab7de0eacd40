"""Waiting for pending changes, by what the admin endpoint answers."""

import asyncio
import contextlib
import json
import time

import pytest

from proxy.commands import throttle
from proxy.commands.table_reader import ReadFailure
from proxy.commands.throttle import Throttle
from proxy.config.units import Address
from proxy.demo.servers import HOST, free_port


@contextlib.asynccontextmanager
async def admin(answers):
    """An admin endpoint that answers /status with these, one after the other, and all later requests with the last
    one; and the requests."""
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        content = answers[min(len(asked), len(answers)) - 1]
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + content if content is not None else b"HTTP/1.1 503 No\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield Address(HOST, server.sockets[0].getsockname()[1]), asked


def pending(*numbers):
    return [json.dumps({"pending_changes": number}).encode() for number in numbers]


async def test_wait_returns_when_few_enough_changes_are_pending():
    async with admin(pending(900, 500, 101, 100, 0)) as (address, asked):
        await Throttle(address, 100).wait()
        assert len(asked) == 4
        assert asked[0].startswith(b"GET /status HTTP/1.")


async def test_wait_fails_when_the_number_does_not_change_for_the_stall_timeout(monkeypatch):
    monkeypatch.setattr(throttle, "STALL_TIMEOUT", 0.2)
    async with admin(pending(500, 400, 400)) as (address, _):
        with pytest.raises(ReadFailure, match="400 changes are pending and none has reached Redis"):
            await Throttle(address, 100).wait()


async def test_wait_goes_on_beyond_the_stall_timeout_while_the_number_changes(monkeypatch):
    monkeypatch.setattr(throttle, "STALL_TIMEOUT", 0.2)
    async with admin(pending(*range(130, 99, -1))) as (address, asked):
        await Throttle(address, 100).wait()
        assert len(asked) == 31


async def test_settle_returns_at_zero_or_when_its_timeout_is_over(monkeypatch):
    async with admin(pending(3, 2, 0, 0)) as (address, asked):
        await Throttle(address, 100).settle()
        assert len(asked) == 4
    monkeypatch.setattr(throttle, "SETTLE_TIMEOUT", 0.2)
    async with admin(pending(3)) as (address, _):
        began = time.monotonic()
        await Throttle(address, 100).settle()
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("answer", [None, b"", b"[]", b"{}", b'{"pending_changes": "many"}', b"\xff"])
async def test_malformed_answer_counts_as_none(answer):
    async with admin([answer]) as (address, asked):
        limited = Throttle(address, 100)
        assert await limited.pending_changes() is None
        await limited.wait()
        assert asked


async def test_wait_returns_at_once_without_an_endpoint():
    for address in (None, Address(HOST, free_port()), Address("", 1, "/nowhere/.s.PGSQL.1")):
        limited = Throttle(address, 1)
        assert await limited.pending_changes() is None
        await limited.wait()


async def test_endpoint_on_a_unix_socket_is_asked(tmp_path):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"pending_changes": 7}')
        writer.close()

    path = str(tmp_path / "admin")
    async with await asyncio.start_unix_server(answer, path):
        assert await Throttle(Address("", 1, path), 1).pending_changes() == 7


async def test_settle_waits_a_second_without_an_endpoint():
    began = time.monotonic()
    await Throttle(None, 1).settle()
    assert 0.9 < time.monotonic() - began < 5
