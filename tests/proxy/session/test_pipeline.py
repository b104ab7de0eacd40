"""Pipeline: replies meet their requests through errors, COPY and pipelining."""

from __future__ import annotations

import pytest

from proxy.session.pending_requests import (
    BindRequest,
    DescribeRequest,
    ExecuteRequest,
    FunctionCallRequest,
    ParseRequest,
    PendingRequest,
    QueryRequest,
    SyncRequest,
)
from proxy.session.pipeline import BYTE_LIMIT, MAX_BYTES, REQUEST_LIMIT, Desynchronized, Pipeline
from proxy.session.prepared_objects import unseen_statement

P, B, D, E, S, Q, F = "PBDESQF"
"""Requests by the first letter of their message."""
END = "end"
"""CopyDone or CopyFail, which is no request."""


def request(letter: str, size: int = 0) -> PendingRequest:
    head = (0, 0, size)
    made: dict[str, PendingRequest] = {
        P: ParseRequest(*head, b"", unseen_statement()),
        B: BindRequest(*head, b"", b"", None),
        D: DescribeRequest(*head, ord("P"), b""),
        E: ExecuteRequest(*head, b""),
        S: SyncRequest(*head),
        Q: QueryRequest(*head, b"", (None, None), (), ()),
        F: FunctionCallRequest(*head),
    }
    return made[letter]


def pipeline(*letters: str) -> Pipeline:
    line = Pipeline()
    for letter in letters:
        send(line, letter)
    return line


def send(line: Pipeline, letter: str) -> None:
    if letter == END:
        line.copy_end()
    else:
        line.send(request(letter))


def answer(line: Pipeline, letter: str) -> None:
    """The reply that answers the head in full."""
    if letter == E:
        line.executed()
    elif letter in "SQF":
        assert ready(line) == letter
    else:
        line.pop({P: ParseRequest, B: BindRequest, D: DescribeRequest}[letter], "its reply")


def outstanding(line: Pipeline) -> str:
    return "".join(one.MESSAGE[0] for one in line.outstanding())


def failed(line: Pipeline) -> str:
    found = line.error()
    assert found is not None
    return found.MESSAGE[0]


def ready(line: Pipeline) -> str:
    return line.ready().MESSAGE[0]


def test_replies_answer_the_requests_in_their_order():
    line = pipeline(P, B, D, E, S)
    for letter in (P, B, D, E, S):
        assert not line.at_rest
        answer(line, letter)
    assert line.at_rest


def test_reply_to_another_request_desynchronizes():
    with pytest.raises(Desynchronized, match="BindComplete came while an answer to Parse was due"):
        pipeline(P, S).pop(BindRequest, "BindComplete")
    with pytest.raises(Desynchronized, match="DataRow came while an answer to Sync was due"):
        pipeline(S).expect_statement("DataRow")
    with pytest.raises(Desynchronized, match="ReadyForQuery came while an answer to Parse was due"):
        pipeline(P).ready()


def test_reply_desynchronizes_if_nothing_is_outstanding():
    with pytest.raises(Desynchronized, match="ReadyForQuery came while nothing was due"):
        pipeline().ready()
    with pytest.raises(Desynchronized, match="NoData came while nothing was due"):
        pipeline().pop(DescribeRequest, "NoData")


@pytest.mark.parametrize("letter", [Q, E])
def test_statement_is_expected_of_query_and_execute(letter: str):
    line = pipeline(letter)
    assert line.expect_statement("DataRow") is line.head()


def test_error_skips_to_the_sync_also_over_a_query():
    line = pipeline(P, B, Q, E, S, P, S)
    assert failed(line) == P
    assert outstanding(line) == "SPS"
    for letter in (S, P, S):
        answer(line, letter)
    assert line.at_rest


def test_error_ignores_all_requests_up_to_a_sync_that_is_sent_later():
    line = pipeline(P, B)
    line.error()
    for letter in (E, Q, F, END):
        send(line, letter)
    assert outstanding(line) == ""
    assert not line.at_rest, "a Sync is still to come"
    send(line, S)
    send(line, Q)
    assert outstanding(line) == "SQ"


@pytest.mark.parametrize("letter", [Q, F, S])
def test_error_in_a_request_that_owes_ready_for_query_skips_nothing(letter: str):
    line = pipeline(letter, P, S)
    assert failed(line) == letter
    assert outstanding(line) == letter + "PS"
    assert ready(line) == letter


def test_error_changes_nothing_if_nothing_is_outstanding():
    """The connection is ending."""
    line = pipeline()
    assert line.error() is None
    assert line.at_rest


def test_query_and_sync_are_each_owed_a_ready_for_query():
    line = pipeline(Q, S, Q)
    assert [ready(line) for _ in range(3)] == [Q, S, Q]


def test_sync_that_was_sent_before_copy_data_is_ignored():
    line = pipeline(E, S)
    line.copy_in()
    assert outstanding(line) == "E"
    for letter in (END, S):
        send(line, letter)
    for letter in (E, S):
        answer(line, letter)
    assert line.at_rest


def test_sync_that_is_sent_into_copy_data_is_ignored():
    line = pipeline(Q)
    line.copy_in()
    for letter in (S, END):
        send(line, letter)
    assert ready(line) == Q
    assert line.at_rest


def test_sync_behind_the_end_of_copy_data_stays_outstanding():
    line = pipeline(E, END, S)
    line.copy_in()
    answer(line, E)
    assert ready(line) == S


def test_error_after_a_sync_in_copy_data_desynchronizes():
    line = pipeline(E, S)
    line.copy_in()
    with pytest.raises(Desynchronized, match="a Sync among them"):
        line.error()


def test_error_after_a_copy_that_has_ended_can_be_followed():
    line = pipeline(E, S)
    line.copy_in()
    for letter in (END, P, S):
        send(line, letter)
    answer(line, E)
    assert failed(line) == P


def test_error_in_copy_data_of_an_execute_skips_to_the_sync():
    line = pipeline(E)
    line.copy_in()
    line.error()
    for letter in (END, S):
        send(line, letter)
    assert ready(line) == S


def test_error_in_copy_data_of_a_query_leaves_the_query_outstanding():
    line = pipeline(Q)
    line.copy_in()
    assert failed(line) == Q
    send(line, END)
    assert ready(line) == Q
    assert line.at_rest


def test_request_other_than_sync_in_copy_data_desynchronizes():
    line = pipeline(Q)
    line.copy_in()
    with pytest.raises(Desynchronized, match="Parse in the middle of COPY data"):
        send(line, P)
    with pytest.raises(Desynchronized, match="Query in the middle of COPY data"):
        pipeline(E, Q).copy_in()


def test_copy_in_response_to_a_request_that_runs_nothing_desynchronizes():
    with pytest.raises(Desynchronized, match="CopyInResponse came"):
        pipeline(P).copy_in()


def test_end_of_copy_data_is_ignored_outside_of_copy():
    line = pipeline(END)
    assert line.at_rest
    line = pipeline(P, END, S)
    answer(line, P)
    assert ready(line) == S


def test_each_end_of_copy_data_ends_one_copy():
    """One Query may hold several COPY statements, whose data a client may send without waiting."""
    line = pipeline(Q, END, END, Q)
    line.copy_in()
    line.copy_in()
    assert outstanding(line) == "QQ"
    answer(line, Q)
    assert ready(line) == Q
    line = pipeline(Q, END, S, END)
    line.copy_in()
    line.copy_in()
    assert outstanding(line) == "Q", "the Sync was read as part of the second one's data"


def test_ends_of_copy_data_are_not_queued():
    line = pipeline(Q, *[END] * 1000)
    assert outstanding(line) == "Q"
    answer(line, Q)
    assert line.at_rest


def test_many_requests_are_over_the_limit_until_half_of_them_is_answered():
    line = pipeline(*[Q] * REQUEST_LIMIT)
    assert not line.over_limit(before=False)
    send(line, Q)
    assert line.over_limit(before=False)
    while len(outstanding(line)) > REQUEST_LIMIT // 2:
        assert line.over_limit(before=True)
        answer(line, Q)
    assert not line.over_limit(before=True)


@pytest.mark.parametrize("end", ["answered", "failed", "skipped"])
def test_large_requests_are_over_the_limit_until_they_are_answered_or_ignored(end: str):
    line = pipeline()
    line.send(request(P, 100))
    line.send(request(B, BYTE_LIMIT))
    assert line.over_limit(before=False)
    send(line, S)
    if end == "answered":
        answer(line, P)
        assert line.size == BYTE_LIMIT
        answer(line, B)
    else:
        if end == "failed":
            answer(line, P)
        line.error()
    assert line.size == 0
    assert not line.over_limit(before=True)


def test_answers_are_due_if_the_last_request_owes_ready_for_query():
    line = pipeline(P, B)
    assert not line.answers_due, "the server may keep what it has to say"
    send(line, S)
    assert line.answers_due
    line.error()
    answer(line, S)
    assert not line.answers_due


def test_chunk_of_the_fast_path_is_outstanding_and_its_answer_is_due():
    line = pipeline()
    line.chunk = b"Q"
    assert not line.at_rest
    assert line.answers_due
    line.chunk = None
    assert line.at_rest


def test_more_bytes_than_can_be_remembered_desynchronize():
    line = pipeline()
    for _ in range(2):
        line.send(request(Q, MAX_BYTES // 2))
    with pytest.raises(Desynchronized, match="are unanswered"):
        line.send(request(Q, 1))
