"""Mistakes of our own where the relay meets its observer: traceback, count, a session that goes on, no stale key."""

import re
from pathlib import Path

import pytest

from protocol import codes, frontend, startup
from tests.e2e.processes import wait_until
from tests.e2e.raw_sessions import read_to_end
from tests.script import Client

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
FAULTS = Path(__file__).parent / "faults"


@pytest.fixture
def proxy(rowtap, connect, redis_client, request):
    """In front of two rows whose keys are in Redis; with the mistakes of `faults/`."""
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("INSERT INTO users VALUES (1, 'old'), (2, 'other')")
    found = rowtap([USERS], getattr(request, "param", {}), env={"PYTHONPATH": str(FAULTS)})
    fill(found, redis_client)
    return found


def fill(proxy, redis_client):
    with proxy.connect() as reader:

        def filled():
            reader.execute("SELECT id, name FROM users")
            proxy.settle()
            return redis_client.get("users:1") is not None

        wait_until(filled)


def internal_errors(proxy):
    """By the part that caught them."""
    found = re.findall(r'^rowtap_internal_errors_total\{where="(.+)"\} (.+)$', proxy.get("/metrics")[1], re.MULTILINE)
    return {where: float(number) for where, number in found if float(number)}


def assert_reported(proxy, fault, where="relay", times=1):
    """A traceback that ends with the mistake, and a count. The log is emptied: no other traceback may follow."""
    assert internal_errors(proxy) == {where: times}
    text = proxy.log_text()
    assert text.count("Traceback (most recent call last)") == times
    assert text.count(f"InjectedFault: {fault}") == times
    assert "internal error" in text
    proxy.log_path.write_text("")


def assert_no_stale_key(proxy, connect, redis_client):
    proxy.settle()
    ((row,),) = connect().execute("SELECT name FROM users WHERE id = 1").fetchall()
    assert redis_client.get("users:1") in (None, row.encode())
    assert row == "new"


@pytest.mark.parametrize("fault", ["frontend", "backend", "catalog", "closed"])
def test_fault_in_a_session_that_writes_leaves_no_stale_key(proxy, connect, redis_client, fault):
    with proxy.connect() as client:
        client.execute(f"SELECT 'fault={fault}'")
        client.execute("UPDATE users SET name = 'new' WHERE id = 1")
        assert client.execute("SELECT name FROM users WHERE id = 1").fetchone() == ("new",)
    wait_until(lambda: proxy.status()["sessions"] == 0)
    assert_no_stale_key(proxy, connect, redis_client)
    assert_reported(proxy, fault)
    fill(proxy, redis_client)
    assert redis_client.get("users:1") == b"new"


@pytest.mark.parametrize("proxy", [{"cache": {"before_commit": True}}], indirect=True)
@pytest.mark.parametrize("fault", ["frontend", "wait"])
def test_fault_before_a_write_is_forwarded_leaves_no_stale_key(proxy, connect, redis_client, fault):
    with proxy.connect() as client:
        client.execute(f"UPDATE users SET name = 'new' WHERE id = 1 AND 'fault={fault}' <> ''")
        assert client.execute("SELECT name FROM users WHERE id = 1").fetchone() == ("new",)
    wait_until(lambda: proxy.status()["sessions"] == 0)
    assert_no_stale_key(proxy, connect, redis_client)
    assert_reported(proxy, fault)


def test_fault_in_the_answer_to_the_catalog_query_leaves_no_stale_key(rowtap, connect, redis_client):
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("INSERT INTO users VALUES (1, 'old')")
    proxy = rowtap([USERS], env={"PYTHONPATH": str(FAULTS), "FAULT": "answer"})
    with proxy.connect() as client:
        client.execute("SELECT id, name FROM users")
        client.execute("UPDATE users SET name = 'new' WHERE id = 1")
        assert client.execute("SELECT id, name FROM users").fetchone() == (1, "new")
    wait_until(lambda: proxy.status()["sessions"] == 0)
    assert_no_stale_key(proxy, connect, redis_client)
    assert_reported(proxy, "answer")


def begin_login(proxy, **parameters):
    """A client that has sent its startup packet, and what is to come behind it."""
    client = Client(proxy.host, proxy.port)
    words = {"user": "postgres", "database": proxy.database} | parameters
    pairs = tuple((name.encode(), value.encode()) for name, value in words.items())
    return client, bytes(startup.StartupMessage(codes.PROTOCOL_3_0, pairs))


def test_fault_in_a_login_cuts_its_session_alone(proxy):
    other = proxy.connect()
    client, packet = begin_login(proxy)
    with client:
        client.socket.sendall(packet + bytes(frontend.Query(b"SELECT 'fault=startup'")))
        assert read_to_end(client.socket) == b""
    assert other.execute("SELECT 1").fetchone() == (1,)
    wait_until(lambda: proxy.status()["sessions"] == 1)
    assert_reported(proxy, "startup")


def test_fault_that_escapes_a_callback_of_the_event_loop_is_reported_and_cuts_its_session_alone(proxy):
    other = proxy.connect()
    client, packet = begin_login(proxy, user="password_user")
    with client:
        client.socket.sendall(packet)
        assert client.socket.recv(1) == b"R"
        client.send(frontend.PasswordMessage(b"fault=startup"))
        read_to_end(client.socket)
    assert other.execute("SELECT 1").fetchone() == (1,)
    wait_until(lambda: proxy.status()["sessions"] == 1)
    assert_reported(proxy, "startup", "event_loop")


@pytest.mark.parametrize("proxy", [{"cache": {"before_commit": True}}], indirect=True)
def test_write_sent_with_the_startup_packet_leaves_no_stale_key_and_no_warning(proxy, connect, redis_client):
    """It is forwarded before it can be shown, so it does not wait for Redis."""
    client, packet = begin_login(proxy)
    with client:
        update = frontend.Query(b"UPDATE users SET name = 'new' WHERE id = 1")
        client.socket.sendall(packet + bytes(update) + frontend.TERMINATE_FRAME)
        assert b"UPDATE 1" in read_to_end(client.socket)
    wait_until(lambda: proxy.status()["sessions"] == 0)
    assert_no_stale_key(proxy, connect, redis_client)
