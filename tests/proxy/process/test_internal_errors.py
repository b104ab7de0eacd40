"""Exceptions that no rule expects are counted and logged with their tracebacks, wherever they were raised."""

import asyncio
import gc
import io
import logging

import pytest
import structlog

from cache.counts import Counts
from proxy.process import internal_errors
from proxy.process.internal_errors import InternalErrors


@pytest.fixture
def logged(monkeypatch):
    capture = structlog.testing.LogCapture()
    monkeypatch.setattr(internal_errors, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture.entries


@pytest.fixture
def loop_log():
    """What the event loop logs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("asyncio").addHandler(handler)
    yield stream.getvalue
    logging.getLogger("asyncio").removeHandler(handler)


@pytest.fixture
async def watched():
    """The counts of what reaches the running event loop."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    counts = Counts()
    InternalErrors(counts).watch(loop)
    yield counts
    loop.set_exception_handler(before)


def test_a_reported_exception_is_counted_by_part_and_logged_with_its_traceback(logged):
    counts = Counts()
    report = InternalErrors(counts)
    error = RuntimeError("injected")
    report("writer", error)
    report("writer", error)
    report("session", error)
    assert counts.internal_errors == {"writer": 2, "session": 1}
    assert [(entry["event"], entry["where"], entry["exc_info"]) for entry in logged[1:]] == [
        ("internal error", "writer", error),
        ("internal error", "session", error),
    ]


async def test_an_exception_of_a_callback_is_counted_and_logged(watched, logged):
    def fail():
        raise RuntimeError("injected")

    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0.01)
    assert watched.internal_errors == {"event_loop": 1}
    (entry,) = [entry for entry in logged if entry["event"] == "internal error"]
    assert (entry["where"], repr(entry["exc_info"])) == ("event_loop", "RuntimeError('injected')")
    assert entry["exc_info"].__traceback__ is not None


async def test_an_exception_of_a_task_without_a_reader_is_counted_and_logged(watched, logged):
    async def fail():
        raise RuntimeError("injected")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0.01)
    del task
    gc.collect()
    assert watched.internal_errors == {"event_loop": 1}
    assert [repr(entry["exc_info"]) for entry in logged if entry["event"] == "internal error"] == [
        "RuntimeError('injected')"
    ]


@pytest.mark.parametrize("context", [{"message": "no exception"}, {"message": "x", "exception": OSError("reset")}])
async def test_what_is_no_fault_of_ours_is_logged_and_not_counted(watched, loop_log, context):
    asyncio.get_running_loop().call_exception_handler(context)
    assert watched.internal_errors == {}
    assert context["message"] in loop_log()
