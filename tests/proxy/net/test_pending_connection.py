"""A connection kept for later: what arrived, and what became of it, is not lost."""

import asyncio
import socket

import pytest

from protocol.errors import StartupError
from proxy.net.pending_connection import PendingConnection, at_once, never


@pytest.fixture
async def pair():
    """`pair(enough, begun)`: a PendingConnection on one end of a socket pair, and the other end."""
    opened: list[asyncio.BaseTransport | socket.socket] = []

    async def open_pair(enough, begun=b""):
        ours, theirs = socket.socketpair()
        waiting = PendingConnection(enough, begun)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: waiting, ours)
        opened.extend((waiting.transport, theirs))
        return waiting, theirs

    yield open_pair
    for connection in opened:
        connection.close()


async def test_reading_stops_when_there_is_enough(pair):
    waiting, peer = await pair(lambda data: len(data) >= 4)
    peer.send(b"ab")
    await asyncio.sleep(0.02)
    peer.send(b"cd")
    await asyncio.wait_for(waiting.wait(), 2)
    peer.send(b"ef")
    await asyncio.sleep(0.05)
    assert waiting.data == b"abcd"
    assert not waiting.over


async def test_bytes_read_before_count_as_data(pair):
    waiting, _ = await pair(at_once, b"begun")
    await asyncio.wait_for(waiting.wait(), 2)
    assert waiting.data == b"begun"


async def test_end_of_stream_ends_the_wait(pair):
    waiting, peer = await pair(never)
    peer.send(b"last words")
    peer.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(waiting.wait(), 2)
    assert (waiting.data, waiting.ended, waiting.over) == (b"last words", True, True)


async def test_error_raised_by_enough_is_raised_by_wait(pair):
    def refuse(_data):
        raise StartupError("invalid length")

    waiting, peer = await pair(refuse)
    peer.send(b"x")
    with pytest.raises(StartupError, match="invalid length"):
        await asyncio.wait_for(waiting.wait(), 2)


async def test_cancelled_wait_can_be_repeated(pair):
    waiting, peer = await pair(at_once)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting.wait(), 0.02)
    peer.send(b"x")
    await asyncio.wait_for(waiting.wait(), 2)
    assert waiting.data == b"x"
