"""The processes of the servers of proxy/demo/servers.py: ports, directories, and that nothing of them stays."""

import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis

from proxy.demo import server_process
from proxy.demo.server_process import Account
from proxy.demo.servers import EmbeddedError, Postgres, Valkey, free_port
from tests.e2e.processes import wait_until
from tests.proxy.demo.pids import exists

ROOT = Path(__file__).resolve().parents[3]


def test_given_port_that_is_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"Address already in use|{port}"), Valkey(port=port):
            pytest.fail("it started")


def test_chosen_port_that_is_taken_before_the_start_is_replaced():
    server = Valkey()
    with socket.create_server(("127.0.0.1", server.port)) as taken, server:
        assert server.port != taken.getsockname()[1]
        assert redis.Redis.from_url(server.url).ping()


def test_given_directory_stays_after_close(tmp_path):
    # Valkey, because pytest's directories are for their owner only: PostgreSQL's account could not enter root's.
    with Valkey(tmp_path) as server:
        assert server.socket_path.is_socket()
    assert (tmp_path / "valkey.conf").exists()


def test_socket_of_a_long_directory_is_in_another_one_that_is_removed(tmp_path):
    long = tmp_path / ("d" * 100)
    long.mkdir()
    with Valkey(long) as server:
        sockets = server.socket_path.parent
        assert redis.Redis.from_url(server.unix_url).ping()
    assert not sockets.exists()


def test_binary_that_does_not_run_is_an_error(tmp_path):
    (tmp_path / "postgres").write_text("this is no program")
    with pytest.raises(EmbeddedError, match="does not run on this machine"):
        Postgres(bindir=tmp_path)


def test_free_ports_are_below_the_range_of_outgoing_connections():
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
def test_server_and_directory_are_gone_when_the_parent_has_ended(server, then, signum):
    command = [sys.executable, "-c", PARENT.format(server=server, then=then)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        if signum is not None:
            parent.send_signal(signum)
        assert parent.wait(20) != 0
    wait_until(lambda: not exists(int(pid)) and not Path(directory).exists())


@pytest.mark.parametrize(
    ("length", "mode", "used"),
    [
        (20, 0o755, True),
        (90, 0o755, False),
        pytest.param(20, 0o700, False, marks=pytest.mark.skipif(os.geteuid() != 0, reason="root's private directory")),
    ],
)
def test_temporary_directory_is_used_if_its_path_is_short_and_the_account_can_enter_it(monkeypatch, length, mode, used):
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


def test_start_of_a_running_server_does_nothing_and_a_stopped_one_has_no_pid():
    with Valkey() as server:
        pid = server.pid
        server.start()
        assert server.pid == pid
        server.restart()
        assert server.pid != pid
        server.stop()
        with pytest.raises(EmbeddedError, match="Valkey is not running"):
            _ = server.pid


def test_server_that_does_not_answer_in_time_is_killed_and_an_error(monkeypatch):
    monkeypatch.setattr(server_process, "_START_TIMEOUT", 0.2)
    monkeypatch.setattr(Valkey, "_answers", lambda _self, _pid: False)
    server = Valkey()
    with pytest.raises(EmbeddedError, match=r"did not answer within 0\.2 s; its log says"), server:
        pytest.fail("it started")
    assert not server.running


def test_server_that_does_not_stop_in_time_is_killed(monkeypatch):
    monkeypatch.setattr(server_process, "_STOP_TIMEOUT", 0.2)
    monkeypatch.setattr(Valkey, "stop_signal", signal.SIGCONT)
    with Valkey() as server:
        pid = server.pid
    assert not exists(pid)


def test_log_of_a_server_that_was_never_started_is_empty():
    server = Valkey()
    try:
        assert server.log_text() == ""
    finally:
        server.close()


def test_command_that_cannot_be_run_or_fails_is_an_error_with_its_output(tmp_path):
    with pytest.raises(EmbeddedError, match="cannot run /nowhere/program: No such file"):
        server_process.popen(["/nowhere/program"], None, cwd=tmp_path)
    with pytest.raises(EmbeddedError, match=r"(?s)sh failed with status 3:.*why"):
        server_process.run(["/bin/sh", "-c", "echo why; exit 3"], None, tmp_path)
    with pytest.raises(EmbeddedError, match="which is no version"):
        server_process.binary_version(Path("/bin/echo"), r"no such (word)")


@pytest.mark.parametrize("accounts", [("postgres",), ()])
def test_root_uses_the_first_account_that_exists(monkeypatch, accounts):
    entry = pwd.getpwuid(os.getuid())

    def find(name):
        if name not in accounts:
            raise KeyError(name)
        return entry

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", find)
    if accounts:
        assert Account.needed() == Account("postgres", entry.pw_uid, entry.pw_gid)
    else:
        with pytest.raises(EmbeddedError, match="does not run as root"):
            Account.needed()


def test_no_account_is_needed_without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Account.needed() is None


def test_no_free_port_is_an_error(monkeypatch):
    class Taken(socket.socket):
        def bind(self, _address):
            raise OSError("in use")

    monkeypatch.setattr(socket, "socket", Taken)
    with pytest.raises(EmbeddedError, match="no free TCP port"):
        free_port()


def test_children_are_found_where_there_is_no_proc(monkeypatch):
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        try:
            assert child.pid in server_process.children(os.getpid())
            monkeypatch.setattr(Path, "exists", lambda _path: False)
            assert child.pid in server_process.children(os.getpid())
        finally:
            child.kill()
