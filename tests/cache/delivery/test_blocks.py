"""Blocks without Redis: what is requested, when a session may go on, and which batch releases what."""

import asyncio
import time

import pytest

from cache.changes import Kind
from cache.delivery.backlog import BLOCK_KEYS
from cache.delivery.scripts import NO_SCAN, SCAN
from tests.cache.delivery import offline
from tests.cache.delivery.offline import A, B, change, make_backlog, make_rule, scan


@pytest.fixture
def backlog():
    return make_backlog(100_000, fence_life=600)


def evict(key, rule=A):
    return change(Kind.EVICT, key, rule=rule)


def flush(rule=A):
    return change(Kind.FLUSH, rule=rule)


def store(key, value=b"v", rule=A):
    return change(Kind.STORE, key, value, rule)


def ask(backlog, most=1000):
    request = backlog.blocks.take_request(most)
    backlog.confirm_blocks(request)
    return request


def confirm(backlog, most=1000):
    """Send one batch: which keys it changes, and which keys and labels it releases."""
    batch = backlog.batches.take(most, 1 << 20)
    if batch is None:
        return None
    offline.confirm(backlog, batch)
    return {each.key for each in batch.changes}, {release.key or release.label for release in batch.releases}


async def test_block_of_keys_is_confirmed_by_redis_and_pending_until_it_is_released(backlog):
    block = backlog.block([evict(b"a:1"), evict(b"b:1", B), evict(b"a:1")])
    assert (backlog.pending, backlog.waiting) == (1, 1)
    assert not block.confirmed
    request = backlog.blocks.take_request(10)
    assert {key for key, _ in request.keys} == {b"a:1", b"b:1"}
    assert backlog.pending == 1
    backlog.confirm_blocks(request)
    assert await block.wait(0)
    assert backlog.blocks.take_request(10) is None
    assert backlog.pending == 0, "what is blocked is no change yet"
    backlog.put([store(b"a:1")])
    backlog.release(block)
    assert backlog.pending == 3
    assert confirm(backlog) == ({b"a:1"}, {b"a:1", b"b:1"})
    assert backlog.pending == 0
    backlog.release(block)
    assert backlog.pending == 0


async def test_block_of_nothing_is_confirmed_at_once(backlog):
    block = backlog.block([change(Kind.FILL, b"a:1", b"v"), evict(b"c:1", make_rule("c"))])
    assert backlog.pending == 0
    assert await block.wait(0)
    backlog.release(block)
    assert confirm(backlog) is None


async def test_block_of_a_rule_is_confirmed_by_a_scan_that_began_after_it(backlog):
    backlog.put([flush()])
    confirm(backlog)
    backlog.flushes.start_scan()
    block = backlog.block([flush(), evict(b"b:1", B), evict(b"a:1")])
    request = ask(backlog)
    assert [label for label, _ in request.labels] == [A.label]
    assert [key for key, _ in request.keys] == [b"b:1"], "a rule's block covers its keys"
    backlog.flushes.end_scan(complete=True)
    assert not await block.wait(0)
    assert backlog.pending == 1
    assert backlog.flushes.start_scan() == (A,)
    backlog.flushes.end_scan(complete=False)
    assert not await block.wait(0)
    scan(backlog)
    assert await block.wait(0)
    assert backlog.pending == 0


async def test_wait_ends_in_time_and_leaves_the_block(backlog):
    block = backlog.block([evict(b"a:1")])
    begun = time.monotonic()
    assert not await block.wait(0.02)
    assert 0.01 < time.monotonic() - begun < 1
    ask(backlog)
    assert await block.wait(0)


async def test_wait_ends_when_the_block_is_confirmed(backlog):
    block = backlog.block([evict(b"a:1")])
    asyncio.get_running_loop().call_later(0.01, ask, backlog)
    async with asyncio.timeout(5):
        assert await block.wait(60)


async def test_wait_ends_at_once_while_redis_cannot_be_reached(backlog):
    early = backlog.block([evict(b"a:1")])
    waiting = asyncio.create_task(early.wait(60))
    await asyncio.sleep(0)
    backlog.blocks.set_reachable(False)
    async with asyncio.timeout(5):
        assert not await waiting
        late = backlog.block([evict(b"a:2")])
        assert not await late.wait(60)
    request = backlog.blocks.take_request(10)
    assert {key for key, _ in request.keys} == {b"a:1", b"a:2"}, "both are still requested when it can be reached"


async def test_cancelled_wait_leaves_the_block(backlog):
    block = backlog.block([evict(b"a:1")])
    waiting = asyncio.create_task(block.wait(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert backlog.pending == 1


async def test_block_released_before_it_was_sent_is_forgotten(backlog):
    block = backlog.block([evict(b"a:1"), flush(B)])
    backlog.release(block)
    assert backlog.pending == 0
    assert not await block.wait(60)
    assert backlog.blocks.take_request(10) is None
    assert confirm(backlog) is None


async def test_block_released_while_it_was_sent_is_released_in_redis(backlog):
    block = backlog.block([evict(b"a:1"), flush(B)])
    request = backlog.blocks.take_request(10)
    backlog.release(block)
    backlog.confirm_blocks(request)
    assert not block.confirmed
    assert confirm(backlog) == (set(), {b"a:1", B.label})
    assert backlog.pending == 0


async def test_block_of_many_keys_is_requested_in_parts(backlog):
    block = backlog.block([evict(b"a:%d" % i) for i in range(25)])
    other = backlog.block([evict(b"a:99")])
    seen = []
    while (request := backlog.blocks.take_request(10)) is not None:
        assert len(request.keys) <= 10
        assert not block.confirmed
        seen += [key for key, _ in request.keys]
        backlog.confirm_blocks(request)
    assert sorted(seen) == sorted([b"a:%d" % i for i in range(25)] + [b"a:99"])
    assert block.confirmed
    assert other.confirmed


def test_block_of_too_many_keys_blocks_the_rule(backlog):
    backlog.block([evict(b"a:%d" % i) for i in range(BLOCK_KEYS + 1)] + [evict(b"b:1", B)])
    request = backlog.blocks.take_request(10)
    assert [label for label, _ in request.labels] == [A.label]
    assert [key for key, _ in request.keys] == [b"b:1"]


def test_block_of_several_rules_needs_one_scan_of_all_of_them(backlog):
    block = backlog.block([flush(), flush(B)])
    ask(backlog)
    assert not block.confirmed
    assert set(scan(backlog)) == {A, B}
    assert block.confirmed


def test_release_never_goes_before_its_outcome(backlog):
    keys = [b"a:%d" % i for i in range(10)]
    block = backlog.block([evict(key) for key in keys] + [flush(B)])
    ask(backlog)
    scan(backlog)
    backlog.put([store(key) for key in keys] + [store(b"b:%d" % i, rule=B) for i in range(3)])
    backlog.release(block)
    sent, released = set(), set()
    while (step := confirm(backlog, 4)) is not None:
        sent |= step[0]
        released |= step[1]
        assert {key for key in keys if key in released} <= sent
        assert B.label not in released or sent >= {b"b:0", b"b:1", b"b:2"}
    assert released == {*keys, B.label}
    assert backlog.pending == 0


def test_release_goes_with_the_flush_of_its_rule(backlog):
    block = backlog.block([evict(b"a:1")])
    ask(backlog)
    backlog.put([store(b"a:1"), flush()])
    backlog.release(block)
    batch = backlog.batches.take(10, 1000)
    assert [queue.rule for queue, _ in batch.flushes] == [A]
    assert [release.key for release in batch.releases] == [b"a:1"]


@pytest.mark.parametrize("unknown", [True, False])
def test_release_comes_back_with_its_batch(backlog, unknown):
    block = backlog.block([evict(b"a:1")])
    ask(backlog)
    backlog.put([store(b"a:1")])
    backlog.release(block)
    batch = backlog.batches.take(10, 1000)
    assert backlog.pending == 2
    backlog.batches.put_back(batch, outcome_unknown=unknown)
    assert backlog.pending == 2
    assert confirm(backlog) == ({b"a:1"}, {b"a:1"})
    assert backlog.pending == 0


def test_blocks_are_renewed_before_redis_drops_them(backlog):
    block = backlog.block([evict(b"a:1"), flush(B)])
    ask(backlog)
    scan(backlog)
    assert block.confirmed
    backlog.blocks.renew()
    assert backlog.blocks.take_request(10) is None, "it was asked for just now"
    time.sleep(0.21)
    backlog.blocks.renew()
    request = ask(backlog)
    assert [key for key, _ in request.keys] == [b"a:1"]
    assert [label for label, _ in request.labels] == [B.label]
    assert not backlog.flushes.scan_waits
    time.sleep(0.21)
    backlog.release(block)
    backlog.blocks.renew()
    assert backlog.blocks.take_request(10) is None


async def test_blocks_are_requested_again_in_a_new_epoch(backlog):
    done, waits, gone = (backlog.block([evict(b"a:%d" % i)]) for i in range(3))
    rule = backlog.block([flush(B)])
    ask(backlog)
    backlog.flushes.start_scan()
    backlog.release(gone)
    backlog.begin_epoch()
    backlog.flushes.end_scan(complete=True)
    assert (done.confirmed, waits.confirmed, rule.confirmed) == (True, True, False)
    request = ask(backlog)
    assert {key for key, _ in request.keys} == {b"a:0", b"a:1"}
    assert [label for label, _ in request.labels] == [B.label]
    confirm(backlog)
    scan(backlog)
    assert rule.confirmed


async def test_block_is_confirmed_though_its_rules_change_meanwhile(backlog):
    former = make_rule("a")
    block = backlog.block([flush(), flush(B)])
    request = backlog.blocks.take_request(10)
    backlog.configure([former])
    backlog.confirm_blocks(request)
    assert set(backlog.flushes.start_scan()) == {former, B}
    backlog.flushes.end_scan(complete=True)
    assert block.confirmed
    only = backlog.block([flush(former)])
    request = backlog.blocks.take_request(10)
    backlog.configure([])
    backlog.confirm_blocks(request)
    assert only.confirmed, "nothing of it is left to be looked for but what is being removed anyway"


async def test_block_by_the_former_meaning_of_a_rule_blocks_all_of_it(backlog):
    backlog.block([evict(b"a:1", make_rule("a", "other"))])
    assert [label for label, _ in backlog.blocks.take_request(10).labels] == [A.label]


async def test_flush_that_ends_its_block_needs_no_scan_if_redis_says_so(backlog):
    block = backlog.block([flush()])
    ask(backlog)
    backlog.flushes.start_scan()
    assert backlog.flushes.scanned_blocks == [(A.label, block.name)]
    backlog.flushes.end_scan(complete=True)
    backlog.put([flush(), flush(B)])
    backlog.release(block)
    batch = backlog.batches.take(10, 1000)
    offline.confirm(backlog, batch, scans=bytes([NO_SCAN if queue.rule is A else SCAN for queue, _ in batch.flushes]))
    assert backlog.flushes.start_scan() == (B,)
    assert backlog.flushes.scanned_blocks == []
    assert backlog.counts.rule(A.label).flushes == 2


async def test_block_that_came_during_a_scan_is_not_reported_as_looked_for(backlog):
    first = backlog.block([flush()])
    ask(backlog)
    backlog.flushes.start_scan()
    second = backlog.block([flush()])
    ask(backlog)
    assert backlog.flushes.scanned_blocks == [(A.label, first.name)]
    backlog.flushes.end_scan(complete=True)
    assert (first.confirmed, second.confirmed) == (True, False)
    backlog.flushes.start_scan()
    assert backlog.flushes.scanned_blocks == [(A.label, second.name)]
