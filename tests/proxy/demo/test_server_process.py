"""The processes of the servers of proxy/demo/servers.py: ports, directories, and nothing left behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import redis

from proxy.demo.servers import EmbeddedError, Postgres, Valkey, free_port

ROOT = Path(__file__).resolve().parents[3]


def wait_until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_a_fixed_port_that_is_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"Address already in use|{port}"), Valkey(port=port):
            pytest.fail("it started")


def test_a_chosen_port_that_somebody_took_meanwhile_is_replaced():
    server = Valkey()
    with socket.create_server(("127.0.0.1", server.port)) as taken, server:
        assert server.port != taken.getsockname()[1]
        assert redis.Redis.from_url(server.url).ping()


def test_a_directory_of_the_callers_stays(tmp_path):
    # pytest's own directories are for their owner alone, which as root the account of PostgreSQL's is not.
    with Valkey(tmp_path) as server:
        assert server.socket_path.is_socket()
    assert (tmp_path / "valkey.conf").exists()


def test_long_directories_get_their_sockets_elsewhere(tmp_path):
    long = tmp_path / ("d" * 100)
    long.mkdir()
    with Valkey(long) as server:
        sockets = server.socket_path.parent
        assert redis.Redis.from_url(server.unix_url).ping()
    assert not sockets.exists()


def test_a_binary_that_does_not_run_is_an_error(tmp_path):
    (tmp_path / "postgres").write_text("this is no program")
    with pytest.raises(EmbeddedError, match="does not run on this machine"):
        Postgres(bindir=tmp_path)


def test_free_ports_are_below_the_ephemeral_range():
    assert all(20000 <= free_port() < 32000 for _ in range(20))


PARENT = """
import os, time
from proxy.demo.servers import Postgres, Valkey
with {server}() as server:
    print(server.pid, server.directory, flush=True)
    {then}
"""


@pytest.mark.parametrize(
    ("server", "then", "signum"),
    [
        ("Postgres", "time.sleep(60)", signal.SIGKILL),
        ("Valkey", "time.sleep(60)", signal.SIGKILL),
        ("Valkey", "time.sleep(60)", signal.SIGTERM),
        ("Valkey", "time.sleep(60)", signal.SIGINT),
        ("Valkey", "os._exit(3)", None),
        ("Valkey", "raise SystemExit('went wrong')", None),
        ("Valkey", "server.pause(); os._exit(3)", None),
    ],
)
def test_nothing_outlives_the_parent(server, then, signum):
    command = [sys.executable, "-c", PARENT.format(server=server, then=then)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        if signum is not None:
            parent.send_signal(signum)
        assert parent.wait(20) != 0
    wait_until(lambda: not alive(int(pid)) and not Path(directory).exists())


@pytest.mark.parametrize(
    ("length", "mode", "used"),
    [
        (20, 0o755, True),
        (90, 0o755, False),
        pytest.param(20, 0o700, False, marks=pytest.mark.skipif(os.geteuid() != 0, reason="root's private directory")),
    ],
)
def test_the_temporary_directory_is_used_where_it_can_be(monkeypatch, length, mode, used):
    directory = Path(tempfile.mkdtemp(prefix="t" * length, dir="/tmp"))
    directory.chmod(mode)
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    try:
        server = Postgres()
        assert (server.directory.parent == directory) is used
        server.close()
        assert list(directory.iterdir()) == []
    finally:
        directory.rmdir()
