"""proxy/demo/reaper.py: what a parent left when it ended is ended and removed; what it released is not touched."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from proxy.demo import reaper
from proxy.demo.reaper import Reaper


@pytest.fixture
def sleeper():
    """A process that ignores SIGTERM when it is told to."""
    processes = []

    def start(*, ignores_sigterm=False):
        script = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if ignores_sigterm else "import time;"
        )
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script + "print('up', flush=True); time.sleep(60)"],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        # The parent waits for its children; after its end the system's first process does.
        threading.Thread(target=process.wait).start()
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def line(*words):
    return json.dumps(words).encode() + b"\n"


def test_script_ends_and_removes_what_was_not_released(sleeper, tmp_path):
    kept, ended = sleeper(), sleeper()
    kept_directory, removed = tmp_path / "kept", tmp_path / "removed\nwith a line break"
    kept_directory.mkdir()
    removed.mkdir()
    (removed / "file").touch()
    own = Reaper()
    for process in (kept, ended):
        own.adopt_process(process.pid, signal.SIGTERM)
    for directory in (kept_directory, removed):
        own.adopt_directory(directory)
    own.release_process(kept.pid)
    own.release_directory(kept_directory)
    own.close()
    assert ended.wait(5) == -signal.SIGTERM
    assert kept.poll() is None
    assert kept_directory.exists()
    assert not removed.exists()


def test_suspended_process_is_ended_too(sleeper):
    process = sleeper()
    process.send_signal(signal.SIGSTOP)
    reaper.watch([line("process", process.pid, int(signal.SIGTERM))])
    assert process.wait(5) == -signal.SIGTERM


def test_process_that_ignores_the_signal_is_killed(sleeper, monkeypatch):
    monkeypatch.setattr(reaper, "_GRACE", 0.1)
    process = sleeper(ignores_sigterm=True)
    reaper.watch([line("process", process.pid, int(signal.SIGTERM))])
    assert process.wait(5) == -signal.SIGKILL


def test_incomplete_last_line_is_ignored(sleeper):
    process = sleeper()
    reaper.watch([line("process", process.pid, int(signal.SIGTERM)), line("process", process.pid, None), b'["proc'])
    assert process.poll() is None


def test_parent_goes_on_after_its_script_was_killed(tmp_path):
    own = Reaper()
    own.adopt_directory(tmp_path)
    assert own._script is not None
    own._script.kill()
    own._script.wait()
    own.adopt_directory(tmp_path)
    own.close()
    assert tmp_path.exists()


def test_nothing_is_started_for_a_release_alone_and_close_is_harmless(tmp_path):
    own = Reaper()
    own.release_directory(tmp_path)
    assert own._script is None
    own.close()


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_process_that_is_gone_is_not_waited_for(monkeypatch, error):
    def kill(_pid, _signum):
        raise error

    monkeypatch.setattr(os, "kill", kill)
    began = time.monotonic()
    reaper.watch([line("process", 1, int(signal.SIGTERM))])
    assert time.monotonic() - began < 3
