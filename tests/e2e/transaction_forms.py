"""The transactions a statement can be part of. Each is a function `form(session, send, sql, arguments)`.

`send` is one of the session's methods that send a statement (`session.simple`, …); BEGIN, COMMIT and the like are sent
in the same mode. Each function returns whether the statement's effect was committed.
"""

from protocol import frontend
from tests.e2e.statement_client import extended, inlined

DIVISION_BY_ZERO = "22012"


def autocommit(session, send, sql, arguments):
    _fine(send(sql, *arguments))
    return True


def committed(session, send, sql, arguments):
    _run(send, "BEGIN")
    _fine(send(sql, *arguments))
    _run(send, "COMMIT")
    return True


def rolled_back(session, send, sql, arguments):
    _run(send, "BEGIN")
    _fine(send(sql, *arguments))
    _run(send, "ROLLBACK")
    return False


def savepoint_kept(session, send, sql, arguments):
    _run(send, "START TRANSACTION")
    _run(send, "SAVEPOINT a")
    _fine(send(sql, *arguments))
    _run(send, "RELEASE SAVEPOINT a")
    _run(send, "END")
    return True


def savepoint_rolled_back(session, send, sql, arguments):
    _run(send, "BEGIN")
    _run(send, "SAVEPOINT a")
    _fine(send(sql, *arguments))
    _run(send, "ROLLBACK TO a")
    _run(send, "COMMIT")
    return False


def failed_block(session, send, sql, arguments):
    _run(send, "BEGIN")
    _fine(send(sql, *arguments))
    assert send("SELECT 1/0").errors == [DIVISION_BY_ZERO]
    answer = session.simple("COMMIT")
    assert (answer.tags, answer.status) == (["ROLLBACK"], "I")
    return False


def failed_savepoint(session, send, sql, arguments):
    """An error after the statement; ROLLBACK TO undoes both."""
    _run(send, "BEGIN")
    _run(send, 'SAVEPOINT "A b"')
    _fine(send(sql, *arguments))
    assert send("SELECT 1/0").errors == [DIVISION_BY_ZERO]
    session.simple('ROLLBACK TRANSACTION TO SAVEPOINT "A b"')
    _run(send, "COMMIT")
    return False


def several_in_a_query(session, send, sql, arguments):
    _fine(session.simple(f"SELECT 1; {inlined(sql, arguments)}; SELECT 2"))
    return True


def query_with_a_later_error(session, send, sql, arguments):
    answer = session.simple(f"{inlined(sql, arguments)}; SELECT 1/0")
    assert (answer.errors, answer.status) == ([DIVISION_BY_ZERO], "I")
    return False


def commit_within_a_query(session, send, sql, arguments):
    answer = session.simple(f"BEGIN; {inlined(sql, arguments)}; COMMIT; SELECT 1/0")
    assert (answer.errors, answer.status) == ([DIVISION_BY_ZERO], "I")
    return True


def one_pipeline(session, send, sql, arguments):
    session.send(_piece("SELECT 1"), _piece(sql, arguments), _piece("SELECT 2"), frontend.SYNC_FRAME)
    _fine(session.answer())
    return True


def pipeline_with_a_later_error(session, send, sql, arguments):
    session.send(_piece(sql, arguments), _piece("SELECT 1/0"), _piece("SELECT 2"), frontend.SYNC_FRAME)
    answer = session.answer()
    assert (answer.errors, answer.status) == ([DIVISION_BY_ZERO], "I")
    return False


def pipelined_block(session, send, sql, arguments):
    """A whole block sent before anything is answered, with a Sync after each statement."""
    pieces = (_piece("BEGIN"), _piece(sql, arguments), _piece("COMMIT"))
    session.send(*(piece + frontend.SYNC_FRAME for piece in pieces))
    _fine(session.answer(3))
    return True


TRANSACTION_FORMS = (
    autocommit,
    committed,
    rolled_back,
    savepoint_kept,
    savepoint_rolled_back,
    failed_block,
    failed_savepoint,
    several_in_a_query,
    query_with_a_later_error,
    commit_within_a_query,
    one_pipeline,
    pipeline_with_a_later_error,
    pipelined_block,
)


def _piece(sql, arguments=()):
    return extended(sql, arguments)


def _fine(answer):
    assert not answer.errors, answer
    return answer


def _run(send, sql):
    _fine(send(sql))


def combinations(cases, modes, *, every=1):
    """Each case in every mode outside a block; and in the other transaction forms (or in one of `every` of them, in
    rotation) in one mode, also in rotation."""
    for number, case in enumerate(cases):
        for mode in modes:
            yield case, mode, autocommit
        for offset, form in enumerate(TRANSACTION_FORMS[1:]):
            if (number + offset) % every == 0:
                yield case, modes[(number // every + offset) % len(modes)], form
