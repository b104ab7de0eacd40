"""Faults of our own in the writer: each is reported with its traceback once, counted, and leaves no stale key."""

import asyncio
import contextlib
import traceback

import pytest

from cache.changes import Kind
from cache.delivery import client, scripts, writer
from cache.delivery.batches import Batches
from cache.delivery.faults import ScriptFaultError
from cache.delivery.queues import RuleQueue
from cache.delivery.registration import Registration
from cache.delivery.scanning import Scan
from cache.delivery.scripts import Script
from tests.cache.delivery.writing import Worker, working


@contextlib.asynccontextmanager
async def reporting(url, **options):
    """A worker whose reports are kept in ``worker.reported``."""
    reported: list[tuple[str, BaseException]] = []

    def report(where, error):
        worker.backlog.counts.internal_error(where)
        reported.append((where, error))

    async with working(url, on_internal_error=report, **options) as worker:
        worker.reported = reported
        yield worker


def faults(w):
    return w.backlog.counts.internal_errors.get("writer", 0)


def fail(*_, **__):
    raise TypeError("a fault of our own")


FAULTY = Script("local a = nil\nreturn a.b", ("apply.lua:1", "apply.lua:2"))

PLACES = {
    "packing a batch": (writer, "apply_arguments", fail),
    "apply.lua": (scripts, "APPLY", FAULTY),
    "reading a reply": (Registration, "heard", fail),
    "confirming a batch": (Batches, "_note_own_writes", fail),
    "joining": (Registration, "join", fail),
    "join.lua": (scripts, "JOIN", FAULTY),
    "taking a batch": (Batches, "_outcome_waits", fail),
}


@pytest.mark.parametrize("place", PLACES)
async def test_fault_is_reported_and_counted_and_its_keys_are_right_or_absent(
    redis_url, redis_client, monkeypatch, place
):
    async with reporting(redis_url) as w:
        w.store(b"old")
        w.store(b"old", key=b"users:2")
        await w.settle()
        block = w.backlog.block([w.change(Kind.EVICT, b"users:3")])
        assert await block.wait(5)
        errors = w.backlog.counts.redis_errors
        with monkeypatch.context() as broken:
            broken.setattr(*PLACES[place])
            w.store(b"new")
            w.evict(key=b"users:2")
            w.backlog.release(block)
            w.writer.reconfigured()
            await w.until(lambda: faults(w) >= 3)
            assert w.backlog.pending
        await w.settle()
        assert redis_client.mget("users:1", "users:2") in ([None, None], [b"new", None])
        assert w.backlog.counts.redis_errors == errors, "a fault of our own is no failure of Redis"
        assert "redis lost" not in w.events
        where, error = w.reported[0]
        assert where == "writer"
        assert "line " in "".join(traceback.format_exception(error))
        assert isinstance(error, ScriptFaultError if place.endswith(".lua") else TypeError)
        w.store(b"newer")
        w.fill(b"read", key=b"users:2")
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [b"newer", b"read"], "it has recovered"


async def test_fault_that_repeats_is_reported_once_and_backs_off(redis_url, monkeypatch):
    async with reporting(redis_url, max_delay=60) as w:
        with monkeypatch.context() as broken:
            broken.setattr(*PLACES["packing a batch"])
            w.store(b"v")
            await w.until(lambda: faults(w) >= 3)
            await asyncio.sleep(0.5)
            # Pauses of at least 0.05, 0.1, 0.2, 0.4 seconds come between them.
            assert faults(w) <= 5
        assert len(w.reported) == 1
        assert w.writer._faults.in_a_row == faults(w)


async def test_value_that_cannot_be_sent_is_evicted_and_holds_up_nothing(redis_url, redis_client):
    async with reporting(redis_url) as w:
        w.store(b"old")
        await w.settle()
        w.store({b"v": ["not", "text"]})
        w.store(b"v", key=b"users:2")
        await w.settle()
        assert redis_client.get("users:1") is None
        assert [type(error) for _, error in w.reported] == [TypeError]
        w.store(b"w", key=b"users:2")
        await w.settle()
        assert redis_client.get("users:2") == b"w"


async def test_all_rules_are_flushed_if_a_batch_cannot_be_put_back(redis_url, redis_client, monkeypatch):
    async with reporting(redis_url) as w:
        w.store(b"old")
        w.store(b"old", key=b"users:2")
        await w.settle()
        with monkeypatch.context() as broken:
            broken.setattr(*PLACES["packing a batch"])
            broken.setattr(RuleQueue, "put_back_write", fail)
            w.store(b"new")
            await w.until(lambda: faults(w) >= 2)
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [None, None]
        assert {error.__traceback__ is not None for _, error in w.reported} == {True}
        w.fill(b"v", key=b"users:2")
        await w.settle()
        assert redis_client.get("users:2") is None, "a write that was lost may have been one that may commit later"


@pytest.mark.parametrize("place", ["start", "slice", "end"])
async def test_fault_of_a_scan_is_reported_and_the_scan_begins_anew(redis_url, redis_client, monkeypatch, place):
    async with reporting(redis_url) as w:
        w.store(b"old")
        await w.settle()
        block = w.backlog.block([w.change(Kind.FLUSH, b"")])
        with monkeypatch.context() as broken:
            broken.setattr(
                *{
                    "start": (Scan, "__init__", fail),
                    "slice": (Scan, "owned", fail),
                    "end": (writer, "scanned_arguments", fail),
                }[place]
            )
            await w.until(lambda: faults(w) >= 2)
            assert not block.confirmed
        await w.until(lambda: block.confirmed)
        assert redis_client.get("users:1") is None
        assert len(w.reported) == 1
        w.backlog.release(block)
        await w.settle()


async def test_fault_of_a_block_request_is_reported_and_the_block_is_requested_anew(redis_url, monkeypatch):
    async with reporting(redis_url) as w:
        with monkeypatch.context() as broken:
            broken.setattr(writer, "block_arguments", fail)
            block = w.backlog.block([w.change(Kind.EVICT)])
            await w.until(lambda: faults(w) >= 1)
            assert not await block.wait(5), "the wait ends with the connection"
        await w.until(lambda: block.confirmed)
        w.backlog.release(block)
        await w.settle()


async def test_fault_while_leaving_is_reported_and_the_registration_stays(redis_url, redis_client, monkeypatch):
    async with reporting(redis_url) as w:
        monkeypatch.setattr(scripts, "LEAVE", FAULTY)
        assert await w.writer.drain(5)
        assert [type(error) for _, error in w.reported] == [ScriptFaultError]
        assert redis_client.hexists("rowtap:state", "w:w")


async def test_check_reports_a_fault_and_says_that_it_could_not_check(redis_url, monkeypatch):
    reported = []
    monkeypatch.setattr(client, "problems", fail)
    worker = Worker(redis_url, on_internal_error=lambda *report: reported.append(report))
    assert await worker.writer.check() == ["Redis could not be checked: a fault of our own"]
    assert [(where, type(error)) for where, error in reported] == [("writer", TypeError)]
