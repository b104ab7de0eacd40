"""node-postgres and postgres.js: one program for each, directly and through the proxy; results and every byte are
compared."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.recording import Recorder

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
PACKAGES = ["pg@8.16.3", "pg-copy-streams@6.0.6", "pg-query-stream@4.10.3", "postgres@3.4.7"]
INSTALL_TIMEOUT = 60
CONTENT = "TRUNCATE users; INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger')"


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory, missing):
    """A directory in which the drivers are installed."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        missing("npm or node is not installed")
    directory = tmp_path_factory.mktemp("node")
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--ignore-scripts",
        "--loglevel=error",
        *PACKAGES,
    ]
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        missing(f"npm could not install the drivers within {INSTALL_TIMEOUT} s")
    if done.returncode:
        missing(f"npm could not install the drivers: {done.stderr.strip()[-300:]}")
    return directory


@pytest.mark.parametrize("script", ["node_postgres.js", "postgres_js.js"])
def test_node_driver_sends_and_receives_the_same_bytes(
    rowtap, postgres, connect, database, redis_client, node_modules, script
):
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    proxy = rowtap([USERS])
    program = shutil.copy(Path(__file__).parent / script, node_modules)

    def play(port):
        direct.execute(CONTENT)
        with Recorder("127.0.0.1", port) as recorder:
            url = f"postgresql://postgres@{recorder.host}:{recorder.port}/{database}?sslmode=disable"
            done = subprocess.run(
                ["node", program, url], cwd=node_modules, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines(), recorder.sessions()

    expected, direct_sessions = play(postgres.port)
    found, proxied_sessions = play(proxy.port)
    assert found == expected
    assert len(found) >= 14
    assert len(proxied_sessions) == len(direct_sessions)
    for one, other in zip(proxied_sessions, direct_sessions, strict=True):
        assert one.frontend == other.frontend
        assert one.backend == other.backend
    proxy.settle()
    rows = dict(direct.execute("SELECT id, name FROM users").fetchall())
    for number, name in rows.items():
        assert redis_client.get(f"users:{number}") in (None, name.encode())
    assert proxy.sessions_blinded() == 0
    assert sum(proxy.status()["tables"][f"{database}.public.users"].values()) > 0
