"""A fault of Rowtap's own while it follows a session, injected into a running proxy: the client does not notice, the
log has the traceback, a metric counts it, and no stale key stays."""

import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
INJECTED = """
from cache.capture.outcomes import Outcomes
finished = Outcomes.finished

def faulty(self, execution, tag):
    if tag.startswith(b"UPDATE"):
        raise TypeError("injected fault")
    finished(self, execution, tag)

Outcomes.finished = faulty
"""
"""Run by every Python process that has it on its path as ``sitecustomize``."""


@pytest.fixture
def faulty_proxy(rowtap, connect, tmp_path):
    """A proxy whose sessions fail at each UPDATE, in front of one row."""
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users VALUES (1, 'Ada')")
    (tmp_path / "sitecustomize.py").write_text(INJECTED)
    proxy = rowtap([USERS], env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    yield proxy
    proxy.stop()
    # The traceback is what was wanted; at its end every test's log has to be free of them.
    proxy.log_path.write_text("")


def test_fault_in_a_session_is_logged_counted_and_leaves_no_stale_key(faulty_proxy, redis_client):
    proxy = faulty_proxy
    session = proxy.connect()
    session.execute("SELECT id, name FROM users")
    proxy.settle()
    assert redis_client.get("users:1") == b"Ada"
    assert session.execute("UPDATE users SET name = 'Bob' WHERE id = 1").statusmessage == "UPDATE 1"
    proxy.settle()
    assert redis_client.get("users:1") is None

    assert session.execute("SELECT name FROM users").fetchall() == [("Bob",)]
    log = proxy.log_text()
    assert log.count("Traceback (most recent call last)") == 1
    assert "injected fault" in log
    assert "in _command_complete" in log, "the traceback says where"
    assert 'rowtap_internal_errors_total{where="session"} 1.0' in proxy.get("/metrics")[1]

    other = proxy.connect()
    other.execute("SELECT id, name FROM users")
    proxy.settle()
    assert redis_client.get("users:1") == b"Bob"
    session.execute("UPDATE users SET name = 'Cid' WHERE id = 1")
    session.close()
    deadline = time.monotonic() + 10
    while redis_client.get("users:1") is not None and time.monotonic() < deadline:
        proxy.settle()
    assert redis_client.get("users:1") is None, "what the session wrote unseen is flushed when it ends"
