"""Where a client's chunks wait: order, the end of the stream among them, limits, and who may still pass."""

import pytest

from proxy.net.relay.client_gate import ClientGate
from proxy.net.relay.leg import discard


class Client:
    """A leg as the gate sees it."""

    receive = staticmethod(discard)


class Gated:
    """A gate and what went through it: chunks, and None for the end of the stream."""

    def __init__(self):
        self.client = Client()
        self.passed: list[bytes | None] = []
        self.flows = 0
        self.gate = ClientGate(self.client, self.flow, lambda: self.passed.append(None))  # type: ignore[arg-type]  # as much of a leg as is used
        self.gate.pass_to(self.passed.append)

    def flow(self):
        self.flows += 1

    def send(self, *chunks):
        for chunk in chunks:
            self.client.receive(chunk)


@pytest.fixture
def gated():
    return Gated()


def test_open_gate_passes_chunks_at_once(gated):
    assert gated.gate.is_open
    gated.send(b"1", b"2")
    assert gated.passed == [b"1", b"2"]


def test_closed_gate_keeps_chunks_in_order_until_it_opens(gated):
    gated.gate.close()
    assert not gated.gate.is_open
    gated.send(b"1", b"2")
    gated.gate.put_off(b"3")
    assert gated.passed == []
    gated.gate.open()
    assert gated.passed == [b"1", b"2", b"3"]
    assert gated.gate.is_open


def test_flow_is_asked_for_whenever_the_gate_opens_or_closes(gated):
    gated.gate.close()
    gated.gate.close()
    gated.gate.open()
    assert gated.flows == 3


def test_chunk_that_closes_the_gate_leaves_those_behind_it_waiting(gated):
    def close_at_2(chunk):
        gated.passed.append(chunk)
        if chunk == b"2":
            gated.gate.close()
            gated.send(b"4")

    gated.gate.pass_to(close_at_2)
    gated.gate.close()
    gated.send(b"1", b"2", b"3")
    gated.gate.end()
    gated.gate.open()
    assert gated.passed == [b"1", b"2"]
    gated.gate.open()
    assert gated.passed == [b"1", b"2", b"4", b"3", None]


def test_waiting_chunks_go_where_the_newest_phase_has_them_go(gated):
    later: list[bytes] = []
    gated.gate.close()
    gated.send(b"1")
    gated.gate.pass_to(later.append)
    gated.send(b"2")
    gated.gate.open()
    assert (gated.passed, later) == ([], [b"1", b"2"])


def test_end_of_stream_passes_an_open_gate_at_once_and_what_comes_then_is_dropped(gated):
    gated.gate.end()
    assert (gated.gate.ended, gated.gate.finished) == (True, True)
    gated.send(b"late")
    gated.gate.pass_to(gated.passed.append)
    gated.send(b"later")
    assert gated.passed == [None]


def test_end_of_stream_waits_behind_the_chunks(gated):
    gated.gate.close()
    gated.send(b"1")
    gated.gate.end()
    assert (gated.gate.ended, gated.gate.finished) == (True, False)
    gated.gate.open()
    assert gated.passed == [b"1", None]


def test_client_over_its_limit_waits_until_it_is_resumed(gated):
    gated.gate.stop_client()
    gated.send(b"1")
    assert gated.gate.over_limit
    gated.gate.resume_client()
    assert not gated.gate.over_limit
    assert gated.passed == [b"1"]


def test_limit_does_not_hold_for_a_client_that_is_gone(gated):
    def one_at_a_time(chunk):
        gated.passed.append(chunk)
        gated.gate.stop_client()

    gated.gate.pass_to(one_at_a_time)
    gated.send(b"1", b"2", b"3")
    assert gated.passed == [b"1"]
    gated.gate.end_lost()
    assert gated.passed == [b"1", b"2", b"3", None]


def test_gone_client_still_waits_for_what_is_not_its_limit(gated):
    gated.gate.close()
    gated.send(b"1")
    gated.gate.end_lost()
    assert gated.passed == []
    gated.gate.open()
    assert gated.passed == [b"1", None]


def test_terminated_session_drops_what_waits_because_of_the_limit(gated):
    gated.gate.stop_client()
    gated.send(b"1")
    gated.gate.end_terminated()
    assert gated.passed == [None]


def test_terminated_session_keeps_what_waits_for_another_reason(gated):
    gated.gate.close()
    gated.send(b"1")
    gated.gate.end_terminated()
    gated.gate.open()
    assert gated.passed == [b"1", None]
