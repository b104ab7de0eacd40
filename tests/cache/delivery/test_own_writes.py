"""Which statements may be dated by a write of this worker's."""

import pytest

from cache.changes import Change, Kind
from cache.delivery import own_writes
from cache.delivery.own_writes import OwnWrites
from tests.cache.delivery.writing import make_rule

RULE = make_rule()


def change(key=b"users:1", *, seq, sent_ns, settled_ns=0):
    return Change(Kind.FILL, RULE, key, b"v", seq, sent_ns, settled_ns)


@pytest.fixture
def own():
    """A write of users:1, dated 5, was answered at 100 and has the fence 9."""
    own = OwnWrites()
    own.note(change(seq=5, sent_ns=50, settled_ns=100), 9)
    return own


def dated(own, **facts):
    later = change(**facts)
    own.redate(later)
    return later.seq


def test_what_began_after_it_is_dated_by_it(own):
    assert dated(own, seq=5, sent_ns=101) == 9
    assert dated(own, seq=8, sent_ns=101) == 9


@pytest.mark.parametrize(
    "facts",
    [
        {"seq": 5, "sent_ns": 100},
        {"seq": 5, "sent_ns": 60},
        {"seq": 4, "sent_ns": 101},
        {"seq": 5, "sent_ns": 101, "key": b"users:2"},
    ],
    ids=["began as it was answered", "began before", "somebody else may have written since its date", "another key"],
)
def test_what_is_not(own, facts):
    assert dated(own, **facts) == facts["seq"]


def test_a_newer_date_stays(own):
    assert dated(own, seq=9, sent_ns=101) == 9
    assert dated(own, seq=12, sent_ns=101) == 12


def test_it_is_forgotten(own, monkeypatch):
    assert own.any_known
    own.forget_old()
    assert dated(own, seq=5, sent_ns=101) == 9, "recent, or kept for once more"
    monkeypatch.setattr(own_writes, "LIFE_NS", -1)
    own.forget_old()
    own.forget_old()
    assert dated(own, seq=5, sent_ns=101) == 5
    assert not own.any_known


def test_many_are_forgotten_sooner(own, monkeypatch):
    monkeypatch.setattr(own_writes, "MAX_KEYS", 10)
    own.forget_old()
    for generation in range(3):
        for number in range(11):
            own.note(change(b"users:%d" % (100 + number), seq=5, sent_ns=50, settled_ns=100 + generation), 9)
        own.forget_old()
    assert dated(own, seq=5, sent_ns=101) == 5


def test_without_fences_nothing_is_known(own):
    own.forget()
    assert not own.any_known
    assert dated(own, seq=5, sent_ns=101) == 5
