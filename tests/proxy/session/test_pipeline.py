"""Pipeline: replies meet their requests through errors, COPY and pipelining."""

from __future__ import annotations

import pytest

from proxy.session.pipeline import LIMIT_BYTES, MOST_BYTES, MOST_REQUESTS, Kind, OutOfStep, Pipeline, Request


def pipeline(*kinds: Kind | None) -> Pipeline[None]:
    line: Pipeline[None] = Pipeline()
    for kind in kinds:
        send(line, kind)
    return line


def send(line: Pipeline[None], kind: Kind | None) -> None:
    if kind is None:
        line.copy_end()
    else:
        line.send(Request(kind, None, 0, 0))


def kinds(line: Pipeline[None]) -> list[str]:
    return [request.kind.name for request in line.outstanding()]


def failed(line: Pipeline[None]) -> Kind:
    request = line.error()
    assert request is not None
    return request.kind


P, B, D, E, C, S, Q, F = Kind
END = None
"""CopyDone or CopyFail, which is no request."""


def test_replies_come_in_order():
    line = pipeline(P, B, E, S)
    for kind in (P, B, E):
        line.pop(kind)
    assert line.ready().kind is S
    assert line.at_rest


def test_a_reply_to_another_request_is_out_of_step():
    with pytest.raises(OutOfStep, match="a reply to BIND came while an answer to PARSE was due"):
        pipeline(P, S).pop(B)


def test_nothing_is_due():
    with pytest.raises(OutOfStep, match="while nothing was due"):
        pipeline().ready()


def test_an_error_skips_to_the_sync_even_over_a_query():
    line = pipeline(P, B, Q, E, S, P, S)
    assert failed(line) is P
    assert kinds(line) == ["SYNC", "PARSE", "SYNC"]
    line.ready()
    line.pop(P)
    line.ready()
    assert line.at_rest


def test_an_error_before_the_sync_was_sent_ignores_what_is_sent_until_then():
    line = pipeline(P, B)
    line.error()
    for kind in (E, Q, F, END):
        send(line, kind)
    assert kinds(line) == []
    assert not line.at_rest, "a Sync is still to come"
    send(line, S)
    send(line, Q)
    assert kinds(line) == ["SYNC", "QUERY"]


@pytest.mark.parametrize("kind", [Q, F, S])
def test_an_error_in_what_owes_ready_for_query_skips_nothing(kind: Kind):
    line = pipeline(kind, P, S)
    assert failed(line) is kind
    assert kinds(line) == [kind.name, "PARSE", "SYNC"]
    assert line.ready().kind is kind


def test_an_error_with_nothing_due_ends_the_connection_and_changes_nothing():
    line = pipeline()
    assert line.error() is None
    assert line.at_rest


def test_a_query_and_a_sync_each_own_their_ready_for_query():
    line = pipeline(Q, S, Q)
    assert [line.ready().kind for _ in range(3)] == [Q, S, Q]


def test_a_sync_sent_before_the_copy_data_is_swallowed():
    line = pipeline(E, S)
    line.copy_in()
    assert kinds(line) == ["EXECUTE"]
    send(line, END)
    send(line, S)
    line.pop(E)
    assert line.ready().kind is S


def test_a_sync_sent_into_the_copy_data_is_swallowed():
    line = pipeline(Q)
    line.copy_in()
    send(line, S)
    send(line, END)
    assert line.ready().kind is Q
    assert line.at_rest


def test_copy_data_pipelined_with_its_end_keeps_the_sync_behind_it():
    line = pipeline(E, END, S)
    line.copy_in()
    line.pop(E)
    assert line.ready().kind is S


def test_an_error_after_a_swallowed_sync_cannot_be_followed():
    line = pipeline(E, S)
    line.copy_in()
    with pytest.raises(OutOfStep, match="a Sync among them"):
        line.error()


def test_an_error_in_copy_data_skips_to_the_sync():
    line = pipeline(E)
    line.copy_in()
    line.error()
    send(line, END)
    send(line, S)
    assert line.ready().kind is S


def test_an_error_in_a_querys_copy_data_leaves_the_query_due():
    line = pipeline(Q)
    line.copy_in()
    assert failed(line) is Q
    send(line, END)
    assert line.ready().kind is Q
    assert line.at_rest


def test_another_request_in_the_middle_of_copy_data():
    line = pipeline(Q)
    line.copy_in()
    with pytest.raises(OutOfStep, match="PARSE in the middle of COPY data"):
        send(line, P)
    with pytest.raises(OutOfStep, match="QUERY in the middle of COPY data"):
        pipeline(E, Q).copy_in()


def test_copy_in_nobody_asked_for():
    with pytest.raises(OutOfStep, match="CopyInResponse came"):
        pipeline(P).copy_in()


def test_copy_end_outside_copy_is_forgotten():
    line = pipeline(END)
    assert line.at_rest
    line = pipeline(P, END, S)
    line.pop(P)
    assert line.ready().kind is S


def test_each_copy_end_ends_one_copy():
    """One Query may hold several COPY statements, whose data a client may send without waiting."""
    line = pipeline(Q, END, END, Q)
    line.copy_in()
    line.copy_in()
    assert kinds(line) == ["QUERY", "QUERY"]
    line.ready()
    assert line.ready().kind is Q
    line = pipeline(Q, END, S, END)
    line.copy_in()
    line.copy_in()
    assert kinds(line) == ["QUERY"], "the Sync was read as part of the second one's data"


def test_copy_ends_take_no_room():
    line = pipeline(Q, *[END] * 1000)
    assert len(line) == 1
    line.ready()
    assert line.at_rest


def test_many_requests_crowd_until_half_is_answered():
    line = pipeline(*[Q] * MOST_REQUESTS)
    assert not line.crowded(before=False)
    send(line, Q)
    assert line.crowded(before=False)
    while len(line) > MOST_REQUESTS // 2:
        assert line.crowded(before=True)
        line.ready()
    assert not line.crowded(before=True)


@pytest.mark.parametrize("end", ["answered", "failed", "skipped"])
def test_large_requests_crowd_until_they_are_over(end: str):
    line = pipeline()
    line.send(Request(P, None, 0, 0, 100))
    line.send(Request(B, None, 0, 0, MOST_BYTES))
    assert line.crowded(before=False)
    assert not line.answers_due, "the server may keep what it has to say"
    send(line, S)
    assert line.answers_due
    if end == "answered":
        line.pop(P)
        assert line.weight == MOST_BYTES
        line.pop(B)
    else:
        if end == "failed":
            line.pop(P)
        line.error()
    assert line.weight == 0
    assert not line.crowded(before=True)
    line.ready()
    assert not line.answers_due


def test_more_than_can_be_remembered():
    line = pipeline()
    for _ in range(2):
        line.send(Request(Q, None, 0, 0, LIMIT_BYTES // 2))
    with pytest.raises(OutOfStep, match="are unanswered"):
        line.send(Request(Q, None, 0, 0, 1))
