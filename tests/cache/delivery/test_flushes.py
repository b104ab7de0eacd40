"""What becomes of a Flush: it waits for a batch, then for a scan, and is pending until the scan is complete."""

import pytest

from tests.cache.delivery.offline import A, B, confirm, flush, flushes, make_backlog, scan, take


@pytest.fixture
def backlog():
    return make_backlog()


def test_flush_is_pending_until_its_keys_are_gone(backlog):
    flush(backlog)
    flush(backlog)
    assert (backlog.pending, backlog.waiting) == (1, 1)
    confirm(backlog, take(backlog))
    assert (backlog.pending, backlog.waiting) == (1, 0)
    assert scan(backlog) == (A,)
    assert backlog.pending == 0
    assert backlog.counts.rule(A.label).flushes == 1


def test_flush_during_a_scan_needs_another_scan(backlog):
    flush(backlog)
    confirm(backlog, take(backlog))
    backlog.flushes.start_scan()
    flush(backlog)
    confirm(backlog, take(backlog))
    assert backlog.pending == 2
    backlog.flushes.end_scan(complete=True)
    assert backlog.pending == 1
    assert scan(backlog) == (A,)


def test_interrupted_scan_starts_again_with_what_came_since(backlog):
    flush(backlog)
    confirm(backlog, take(backlog))
    backlog.flushes.start_scan()
    flush(backlog, rule=B)
    confirm(backlog, take(backlog))
    backlog.flushes.end_scan(complete=False)
    assert backlog.flushes.scan_waits
    assert scan(backlog) == (A, B)
    assert not backlog.flushes.scan_waits


def test_end_of_a_scan_that_never_began_changes_nothing(backlog):
    backlog.flushes.end_scan(complete=False)
    assert backlog.pending == 0


def test_two_scans_at_once_are_refused(backlog):
    flush(backlog)
    confirm(backlog, take(backlog))
    backlog.flushes.start_scan()
    with pytest.raises(AssertionError):
        backlog.flushes.start_scan()


def test_rule_that_is_gone_during_its_scan_is_looked_for_once_more(backlog):
    flush(backlog)
    confirm(backlog, take(backlog))
    backlog.flushes.start_scan()
    backlog.configure([B])
    backlog.flushes.end_scan(complete=True)
    assert scan(backlog) == (A,)
    assert backlog.pending == 0


def test_flush_may_commit_later_if_one_of_those_that_waited_may(backlog):
    for may_commit_later in (False, True, False):
        flush(backlog, may_commit_later=may_commit_later)
    batch = take(backlog)
    assert flushes(batch) == {A: True}
    confirm(backlog, batch)
    flush(backlog)
    assert flushes(take(backlog)) == {A: False}
