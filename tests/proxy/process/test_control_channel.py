"""Questions and answers over the socket pair between the supervisor and a worker, late and broken ones among them."""

import asyncio
import contextlib
import socket

import pytest

from proxy.process import control_channel
from proxy.process.control_channel import ControlChannel, answer_status


class Reports(list[tuple[str, str]]):
    """An ``ErrorReport`` that keeps what it is told."""

    def __call__(self, where, error):
        self.append((where, str(error)))


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
async def channel(reports):
    """The supervisor's end, and a bare socket in place of the worker."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    found = await ControlChannel.open(ours, reports)
    with theirs:
        yield found, theirs
        found.close()
        await asyncio.sleep(0)


async def received(connection):
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 1000), 5)


async def send(connection, data):
    await asyncio.get_running_loop().sock_sendall(connection, data)


async def test_a_question_is_a_line_and_its_answer_is_json(channel, reports):
    found, worker = channel
    asked = asyncio.create_task(found.status())
    assert await received(worker) == b"status\n"
    await send(worker, b'{"pending": ')
    await asyncio.sleep(0.01)
    assert not asked.done()
    await send(worker, b"1}\n")
    assert await asked == {"pending": 1}
    assert reports == []


async def test_a_late_answer_is_not_taken_for_that_of_the_next_question(channel):
    found, worker = channel
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(found.status(), 0.02)
    await send(worker, b'{"answer": 1}\n')
    asked = asyncio.create_task(found.status())
    assert await received(worker) == b"status\n"
    assert await received(worker) == b"status\n"
    await send(worker, b'{"answer": 2}\n')
    assert await asked == {"answer": 2}


async def test_questions_at_the_same_time_wait_for_each_other(channel):
    found, worker = channel
    asked = [asyncio.create_task(found.status()) for _ in range(3)]
    for number in range(3):
        assert await received(worker) == b"status\n"
        await send(worker, b"%d\n" % number)
    assert await asyncio.gather(*asked) == [0, 1, 2]


@pytest.mark.parametrize("sent", [b"", b'{"pending": 1'])
async def test_the_end_of_the_worker_is_no_status_and_no_fault(channel, reports, sent):
    found, worker = channel
    await send(worker, sent)
    worker.close()
    assert await found.status() is None
    assert await found.status() is None
    assert reports == []


async def test_the_end_of_the_worker_before_a_late_answer_is_no_status(channel):
    found, worker = channel
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(found.status(), 0.02)
    worker.close()
    assert await found.status() is None


async def test_a_line_that_is_not_json_is_reported_and_no_status(channel, reports):
    found, worker = channel
    await send(worker, b"not JSON\n")
    assert await found.status() is None
    ((where, _),) = reports
    assert where == "supervisor"
    await send(worker, b'{"answer": 2}\n')
    assert await found.status() == {"answer": 2}


async def test_a_line_beyond_the_limit_is_reported_and_no_status(monkeypatch, reports):
    monkeypatch.setattr(control_channel, "MAX_ANSWER", 100)
    ours, theirs = socket.socketpair()
    with theirs:
        found = await ControlChannel.open(ours, reports)
        theirs.send(b"x" * 300 + b"\n")
        assert await found.status() is None
        found.close()
    ((where, _),) = reports
    assert where == "supervisor"


@pytest.fixture
async def answering(reports):
    """`answering(status)`: a worker that answers, as the supervisor's end of the channel, the worker's task, and the
    calls it makes when the supervisor has ended."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(status):
            ours, theirs = socket.socketpair()
            ended: list[bool] = []
            task = asyncio.create_task(answer_status(theirs, status, lambda: ended.append(True), reports))
            stack.callback(task.cancel)
            found = await ControlChannel.open(ours, Reports())
            stack.callback(found.close)
            return found, task, ended

        yield start


async def test_the_worker_answers_until_the_supervisor_has_ended_and_then_says_so(answering, reports):
    found, task, ended = await answering(lambda: {"index": 3})
    assert await found.status() == {"index": 3}
    assert await found.status() == {"index": 3}
    assert ended == []
    found.close()
    await asyncio.wait_for(task, 5)
    assert ended == [True]
    assert reports == []


@pytest.mark.parametrize("failing", [lambda: {"broken": 1 / 0}, lambda: {"not for JSON": object()}])
async def test_a_status_that_fails_is_reported_and_the_worker_goes_on_answering(answering, reports, failing):
    statuses = iter([failing, lambda: {"index": 3}])
    found, _, _ = await answering(lambda: next(statuses)())
    assert await found.status() is None
    assert await found.status() == {"index": 3}
    ((where, _),) = reports
    assert where == "supervisor"


async def test_a_supervisor_that_ends_before_its_answer_ends_the_worker_too(reports):
    ours, theirs = socket.socketpair()
    ended: list[bool] = []

    def status():
        ours.close()
        return {"much": "x" * 10_000_000}

    ours.send(b"status\n" * 2)
    await asyncio.wait_for(answer_status(theirs, status, lambda: ended.append(True), reports), 5)
    assert ended == [True]
    assert reports == []
