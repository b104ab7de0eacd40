"""One connection as the event loop drives it: what becomes of it is passed on, and TLS is half-closed beneath."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from proxy.net.relay import leg as module
from proxy.net.relay.leg import Leg, discard


class Transport:
    """A transport over a real socket; `buffered` bytes are still to be sent."""

    def __init__(self, connection, *, tls=False):
        self.connection, self.tls = connection, tls
        self.buffered = 0
        self.closing = self.aborted = False
        self.written = []
        self.protocol = None

    def write(self, data):
        self.written.append(data)

    def set_write_buffer_limits(self, **limits):
        self.limits = limits

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_write_buffer_size(self):
        return self.buffered

    def get_extra_info(self, name):
        return {"socket": self.connection, "ssl_object": object() if self.tls else None}[name]

    def can_write_eof(self):
        return not self.tls

    def write_eof(self):
        self.connection.shutdown(socket.SHUT_WR)

    def is_closing(self):
        return self.closing

    def abort(self):
        self.aborted = self.closing = True


class Followed:
    """A leg and what it says of itself."""

    def __init__(self):
        self.ends = 0
        self.losses: list[bool] = []
        self.leg = Leg(on_end=self.end, on_lost=self.losses.append, on_pressure=lambda: None)

    def end(self):
        self.ends += 1


@pytest.fixture
def followed():
    return Followed()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def pending(transport, **state):
    return SimpleNamespace(**{"transport": transport, "lost": False, "ended": False, "error": None} | state)


async def test_adopted_connection_is_written_to_at_once(followed, pair):
    transport = Transport(pair[0])
    followed.leg.adopt(pending(transport))
    followed.leg.write(b"data")
    assert transport.written == [b"data"]
    assert transport.protocol is followed.leg
    assert transport.limits == {"high": 1, "low": 0}


async def test_end_of_stream_before_the_adoption_is_passed_on(followed, pair):
    followed.leg.adopt(pending(Transport(pair[0]), ended=True))
    assert followed.ends == 0, "not before the session is put together"
    await asyncio.sleep(0)
    assert followed.ends == 1


@pytest.mark.parametrize("error", [None, OSError("reset")])
async def test_loss_before_the_adoption_is_passed_on(followed, pair, error):
    followed.leg.adopt(pending(Transport(pair[0]), lost=True, error=error))
    assert followed.leg.write is discard
    await asyncio.sleep(0)
    assert followed.losses == [error is None]
    followed.leg.half_close()
    followed.leg.cut()


async def test_connection_that_was_cut_is_lost_without_an_end(followed, pair):
    transport = Transport(pair[0])
    followed.leg.adopt(pending(transport))
    followed.leg.cut()
    assert transport.aborted
    followed.leg.connection_lost(None)
    assert followed.losses == [False]


@pytest.mark.parametrize("tls", [False, True])
async def test_half_close_ends_the_stream_to_the_peer(followed, pair, tls):
    ours, theirs = pair
    followed.leg.adopt(pending(Transport(ours, tls=tls)))
    followed.leg.half_close()
    assert theirs.recv(1) == b""
    theirs.send(b"still read")
    assert ours.recv(100) == b"still read"


async def test_half_close_of_tls_waits_until_all_is_sent(followed, pair, monkeypatch):
    monkeypatch.setattr(module, "HALF_CLOSE_PAUSE", 0.01)
    ours, theirs = pair
    transport = Transport(ours, tls=True)
    transport.buffered = 10
    followed.leg.adopt(pending(transport))
    followed.leg.half_close()
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    transport.buffered = 0
    await asyncio.sleep(0.05)
    assert theirs.recv(1) == b""


async def test_connection_that_is_closing_is_not_half_closed(followed, pair):
    transport = Transport(pair[0])
    followed.leg.adopt(pending(transport))
    transport.closing = True
    followed.leg.half_close()
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)


def test_end_of_tls_closes_the_connection_and_that_of_tcp_does_not(followed, pair):
    for tls in (True, False):
        followed.leg.transport = Transport(pair[0], tls=tls)
        assert followed.leg.eof_received() is not tls
