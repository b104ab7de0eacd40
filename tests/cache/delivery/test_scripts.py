"""The scripts by themselves: what they say to a worker they do not know, and to a batch that comes late."""

import time

import pytest
import redis

from cache.delivery import scripts

LIFE = 60_000


class Caller:
    """Speaks to the scripts as a worker does."""

    def __init__(self, client, name="w", token="t"):
        self.client, self.name, self.token, self.seen = client, name, token, 0

    def join(self, *rules, registered=0, run="r", lease=30_000):
        reply = self.client.eval(
            scripts.JOIN.text,
            0,
            self.name,
            self.token,
            self.seen,
            registered,
            run,
            lease,
            LIFE,
            *(x for r in rules for x in r),
        )
        if reply[0] == scripts.DONE:
            self.seen = reply[1]
        return reply

    def apply(self, key, *change, sent=None, frugal=0, writes=1):
        now = int(time.time() * 1000) if sent is None else sent
        facts = (self.name, self.token, self.seen, now, frugal, writes, LIFE)
        reply = self.client.eval(scripts.APPLY.text, 1, key, *facts, 1, 1, 0, 0, "rule", *change)
        if reply[0] == scripts.DONE:
            self.seen = reply[1]
        return reply


@pytest.fixture
def caller(redis_client):
    return Caller(redis_client)


def test_a_worker_must_join_first(caller, redis_client):
    assert caller.apply("k", "S", 1, 0, 0, "v") == [scripts.REJOIN]
    assert list(redis_client.scan_iter()) == []


def test_the_counter_starts_above_what_any_clock_gave_before(caller):
    _, seq, epoch, clock, changed, orphans = caller.join(("rule", "d"))
    assert seq == epoch
    assert seq // 1000 == pytest.approx(clock, abs=2)
    assert (changed, orphans) == ([b"rule"], [])
    assert caller.join(("rule", "d"), registered=1)[1:5] == [seq, epoch, pytest.approx(clock, abs=5000), []]


def test_nothing_of_the_scripts_expires(caller, redis_client):
    caller.join(("rule", "d"))
    caller.apply("k", "E", 1, 0, 1000)
    assert {key: redis_client.ttl(key) for key in redis_client.scan_iter()} == dict.fromkeys(
        (scripts.STATE, *scripts.FENCES), -1
    )


@pytest.mark.parametrize("late", [False, True])
def test_a_batch_that_comes_late(caller, redis_client, late):
    caller.join(("rule", "d"))
    sent = int(time.time() * 1000) - (LIFE // 4 + 1000 if late else 0)
    reply = caller.apply("k", "S", 1, caller.seen, 0, "v", sent=sent)
    assert reply[4] == (b"O" if late else b"S")
    assert redis_client.get("k") == (None if late else b"v")
    reply = caller.apply("l", "F", 1, caller.seen, 0, "v", sent=sent, writes=0)
    assert reply[4] == (b"R" if late else b"F")


def test_a_silence_refuses_all_that_was_dated_before(caller, redis_client):
    caller.join(("rule", "d"))
    seq = caller.seen
    redis_client.hincrby(scripts.STATE, "time", -LIFE // 2 - 1000)
    assert caller.apply("k", "F", 1, seq, 0, "v", writes=0)[4] == b"R"
    assert caller.apply("k", "F", 1, caller.seen, 0, "v", writes=0)[4] == b"F"


def test_a_clock_that_went_back_refuses_all_that_was_dated_before(caller, redis_client):
    caller.join(("rule", "d"))
    seq = caller.seen
    redis_client.hincrby(scripts.STATE, "rotated", 10_000)
    assert caller.apply("k", "F", 1, seq, 0, "v", writes=0)[4] == b"R"
    assert caller.apply("k", "F", 1, caller.seen, 0, "v", writes=0)[4] == b"F"


def test_a_name_taken_over(caller, redis_client):
    caller.join(("rule", "d"))
    other = Caller(redis_client, token="u")
    assert other.join(("rule", "d"))[5] == [b"rule"], "its predecessor seems to have died"
    assert caller.apply("k", "S", 1, caller.seen, 0, "v") == [scripts.REJOIN]
    assert caller.join(("rule", "d"), registered=1) == [scripts.REJOIN]


def test_holds_do_not_pile_up(caller, redis_client):
    caller.join(("rule", "d"))
    for _ in range(5):
        caller.apply("k", "E", 1, 0, 1000)
    fence = redis_client.hget(scripts.FENCES[0], "k") or redis_client.hget(scripts.FENCES[1], "k")
    assert fence.count(b"@") == 1


def test_another_run_begins_an_epoch(caller):
    epoch = caller.join(("rule", "d"))[2]
    reply = caller.join(("rule", "d"), registered=1, run="another")
    assert reply[2] > epoch
    assert reply[4] == [b"rule"]


def test_a_wrong_type_is_an_error_and_not_a_wrong_value(caller, redis_client):
    redis_client.set(scripts.STATE, "mine")
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE|wrong kind"):
        caller.join(("rule", "d"))
