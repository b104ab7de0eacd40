"""Workers as processes: shared sockets, status, restart, signals, and none that outlives its supervisor."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from proxy.process import supervisor
from proxy.process.supervisor import Supervisor, WorkerSlot

pytestmark = pytest.mark.timing("bounds in seconds on how soon a process of Python has started or stopped")

WORKER = textwrap.dedent("""
    import asyncio, os, sys
    from proxy.process.control_channel import answer_status
    from proxy.process.signals import handle_signals
    from proxy.process.supervisor import WorkerSlot

    async def main():
        slot = WorkerSlot.parse(sys.argv[sys.argv.index("--worker") + 1])
        (listener,) = slot.open_listeners()
        ended = asyncio.Event()
        reloads = []
        loop = asyncio.get_running_loop()

        def accept():
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            connection.send(str(os.getpid()).encode())
            connection.close()

        loop.add_reader(listener, accept)
        status = lambda: {"index": slot.index, "pid": os.getpid(), "reloads": len(reloads)}
        with handle_signals(stop=ended.set, reload=lambda: reloads.append(1)):
            task = asyncio.create_task(answer_status(slot.open_channel(), status, ended.set, print))
            await ended.wait()
            task.cancel()

    asyncio.run(main())
""")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.setblocking(False)
        yield found


@pytest.fixture
def start(listener, monkeypatch):
    monkeypatch.setattr(supervisor, "RESTART_DELAY", 0.05)
    root = str(Path(supervisor.__file__).parents[2])
    script = f"import sys; sys.path.insert(0, {root!r})\n{WORKER}"

    def make(workers=2, script=script):
        found = Supervisor([sys.executable, "-c", script], workers, [listener], shutdown_timeout=1)
        return found, asyncio.ensure_future(found.run())

    return make


async def all_answer(found, seconds=8.0):
    deadline = time.monotonic() + seconds
    while None in (statuses := await found.statuses()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return statuses


async def served_by(listener):
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    pid = int(await reader.read())
    writer.close()
    return pid


async def test_workers_serve_one_socket_answer_for_their_status_and_stop(start, listener):
    found, running = start()
    statuses = await all_answer(found)
    assert [status["index"] for status in statuses] == [0, 1]
    pids = {status["pid"] for status in statuses}
    assert {await served_by(listener) for _ in range(5)} <= pids
    found.reload()
    await asyncio.sleep(0.1)
    assert [status["reloads"] for status in await found.statuses()] == [1, 1]
    found.stop()
    assert await asyncio.wait_for(running, 5) == 0
    assert found.counts.internal_errors == {}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_reload_reaches_a_worker_that_is_still_starting_without_ending_it(start):
    root = str(Path(supervisor.__file__).parents[2])
    found, running = start(1, f"import sys, time; time.sleep(0.5); sys.path.insert(0, {root!r})\n{WORKER}")
    await asyncio.sleep(0.1)
    found.reload()
    (status,) = await all_answer(found)
    while (await found.statuses())[0] != status | {"reloads": 1}:
        await asyncio.sleep(0.02)
    assert found.counts.internal_errors == {}
    found.stop()
    assert await asyncio.wait_for(running, 5) == 0


async def test_killed_worker_is_replaced_and_counted_while_the_other_serves(start, listener):
    found, running = start()
    first, other = await all_answer(found)
    os.kill(first["pid"], signal.SIGKILL)
    assert await served_by(listener) != first["pid"]
    while (statuses := await found.statuses())[0] in (None, first):
        await asyncio.sleep(0.02)
    assert statuses[0]["index"] == 0
    assert statuses[1]["pid"] == other["pid"]
    assert found.counts.internal_errors == {"worker": 1}
    found.stop()
    assert await asyncio.wait_for(running, 5) == 0


async def test_suspended_worker_does_not_delay_the_status_of_others(start):
    found, running = start()
    first, other = await all_answer(found)
    os.kill(first["pid"], signal.SIGSTOP)
    try:
        assert await found.statuses(0.2) == [None, other]
    finally:
        os.kill(first["pid"], signal.SIGCONT)
    found.stop()
    await asyncio.wait_for(running, 5)


async def test_workers_that_cannot_start_are_tried_with_growing_delays(start):
    began = time.monotonic()
    found, running = start(1, "raise SystemExit(3)")
    while found.counts.internal_errors.get("worker", 0) < 4:
        await asyncio.sleep(0.02)
    assert time.monotonic() - began >= 0.05 + 0.1 + 0.2
    found.stop()
    assert await asyncio.wait_for(running, 5) == 1


async def test_worker_that_does_not_stop_is_killed(start, tmp_path):
    ignoring = tmp_path / "ignoring"
    script = "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    found, running = start(1, f"{script}pathlib.Path({str(ignoring)!r}).touch()\ntime.sleep(60)")
    found._kill_timeout = 0.3
    while not ignoring.exists():
        await asyncio.sleep(0.02)
    found.stop()
    assert await asyncio.wait_for(running, 5) == 1


async def test_workers_end_when_their_channel_closes(start):
    found, running = start()
    statuses = await all_answer(found)
    for worker in found._workers:
        worker.channel.close()  # as the end of the supervisor's process does
    found._stopping.set()
    assert await asyncio.wait_for(running, 5) == 0
    for status in statuses:
        with pytest.raises(ProcessLookupError):
            os.kill(status["pid"], 0)


def test_slot_is_read_back_from_a_command_line():
    slot = WorkerSlot(3, 7, (8, 9))
    assert WorkerSlot.parse(str(slot)) == slot
    for text in ("", "1:2", "a:b:c", "1:2:"):
        with pytest.raises(ValueError):
            WorkerSlot.parse(text)


def test_command_runs_this_installation_whatever_the_current_directory_holds(tmp_path):
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    done = subprocess.run(supervisor.command("--help"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_there_is_at_least_one_core():
    assert supervisor.cores() >= 1


async def test_status_that_is_not_json_is_an_internal_error_and_the_worker_stays(start):
    worker = WORKER.replace(
        "task = asyncio.create_task(answer_status(slot.open_channel(), status, ended.set, print))",
        "channel = slot.open_channel();"
        "loop.add_reader(channel, lambda: channel.send(channel.recv(100).replace(b'status', b'not JSON')))",
    ).replace("task.cancel()", "")
    assert worker != WORKER
    root = str(Path(supervisor.__file__).parents[2])
    found, running = start(1, f"import sys; sys.path.insert(0, {root!r})\n{worker}")
    deadline = time.monotonic() + 8
    while not found.counts.internal_errors:
        assert time.monotonic() < deadline
        assert await found.statuses() == [None]
        await asyncio.sleep(0.02)
    assert set(found.counts.internal_errors) == {"supervisor"}
    found.stop()
    assert await asyncio.wait_for(running, 5) == 0


async def test_stop_during_a_restart_delay_starts_no_further_worker(start, monkeypatch):
    monkeypatch.setattr(supervisor, "RESTART_DELAY", 60.0)
    found, running = start(1, "raise SystemExit(3)")
    while not found.counts.internal_errors:
        await asyncio.sleep(0.02)
    found.stop()
    assert await asyncio.wait_for(running, 5) == 1
    assert found.counts.internal_errors == {"worker": 1}


async def test_cancelled_supervisor_kills_its_workers(start):
    found, running = start()
    pids = [status["pid"] for status in await all_answer(found)]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for pid in pids:
        await gone(pid)


async def gone(pid):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"process {pid} is still there")
