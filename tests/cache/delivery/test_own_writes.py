"""Which statements are dated by the fence of a write that this worker sent."""

import pytest

from cache.changes import Kind
from cache.delivery import own_writes
from cache.delivery.own_writes import OwnWrites
from tests.cache.delivery.offline import change


def write(key=b"a:1", *, settled_ns=100):
    made = change(Kind.EVICT, key, seq=5, sent_ns=50)
    made.settled_ns = settled_ns
    return made


@pytest.fixture
def own():
    """A write of a:1, dated 5, settled at 100 and has the fence 9."""
    own = OwnWrites()
    own.note(write(), 9)
    return own


def dated(own, key=b"a:1", **facts):
    later = change(Kind.FILL, key, b"v", **facts)
    own.redate(later)
    return later.seq


@pytest.mark.parametrize("seq", [5, 8])
def test_statement_sent_after_the_write_settled_is_dated_by_its_fence(own, seq):
    assert dated(own, seq=seq, sent_ns=101) == 9


@pytest.mark.parametrize(
    "facts",
    [
        {"seq": 5, "sent_ns": 100},
        {"seq": 5, "sent_ns": 60},
        {"seq": 4, "sent_ns": 101},
        {"seq": 5, "sent_ns": 101, "key": b"a:2"},
        {"seq": 9, "sent_ns": 101},
        {"seq": 12, "sent_ns": 101},
    ],
    ids=["sent as it settled", "sent before", "another write may be between", "another key", "its fence", "newer"],
)
def test_statement_keeps_its_date_if(own, facts):
    assert dated(own, **facts) == facts["seq"]


def test_writes_are_forgotten_after_a_while(own, monkeypatch):
    assert own.any_known
    own.forget_old()
    assert dated(own, seq=5, sent_ns=101) == 9, "recent, or kept once more"
    monkeypatch.setattr(own_writes, "LIFE_NS", -1)
    own.forget_old()
    own.forget_old()
    assert dated(own, seq=5, sent_ns=101) == 5
    assert not own.any_known


def test_many_writes_are_forgotten_sooner(own, monkeypatch):
    monkeypatch.setattr(own_writes, "MAX_KEYS", 10)
    own.forget_old()
    for generation in range(3):
        for number in range(11):
            own.note(write(b"a:%d" % (100 + number), settled_ns=100 + generation), 9)
        own.forget_old()
    assert dated(own, seq=5, sent_ns=101) == 5


def test_all_writes_are_forgotten_when_fences_may_be_gone(own):
    own.forget()
    assert not own.any_known
    assert dated(own, seq=5, sent_ns=101) == 5
