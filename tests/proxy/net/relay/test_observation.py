"""An observer that fails outside of looking at chunks: when it is made, told of something, or closed."""

import psycopg
import pytest

from protocol import codes, frontend
from protocol.startup import StartupMessage
from proxy.net.relay.observation import Observation
from proxy.net.startup import Startup
from tests.proxy.conftest import Fault, Recorder
from tests.proxy.net.bare import open_session, read_to_end, read_until_ready, startup_packet
from tests.script import FakeServer

MESSAGE = StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"\xff"), (b"database", b"app"), (b"DateStyle", b"ISO")))


class Observing:
    """An `Observation` of `observer`, and what was reported."""

    def __init__(self, observer):
        self.observer = observer
        self.facts: list[object] = []
        self.faults: list[tuple[str, str]] = []
        self.observation = Observation(self.observe, lambda where, error: self.faults.append((where, str(error))))

    def observe(self, *facts):
        self.facts.append(facts)
        return self.observer


@pytest.fixture
def startup():
    return Startup()


def test_observer_is_made_with_who_connected_and_how(startup):
    observing = Observing(None)
    assert observing.observation.begin(MESSAGE, startup)
    sent = {"user": "\udcff", "database": "app", "DateStyle": "ISO"}
    assert observing.facts == [("app", "\udcff", {}, sent)]
    assert observing.observation.observer is None
    observing.observation.close(backend_ended=True)


@pytest.mark.parametrize("message", [None, StartupMessage(codes.PROTOCOL_3_0, ((b"replication", b"true"),))], ids=str)
def test_session_for_replication_or_without_a_startup_message_has_no_observer(startup, message):
    observing = Observing(Recorder())
    assert observing.observation.begin(message, startup)
    assert observing.observation.observer is None
    assert observing.facts == []


def test_session_whose_startup_was_not_followed_is_told(startup):
    observing = Observing(Recorder())
    assert observing.observation.begin(MESSAGE, startup)
    assert observing.observer.reasons == ["its startup could not be followed"]


@pytest.mark.parametrize("failing", ["desynchronize", "closed"])
def test_fault_is_reported_and_raised_no_further(startup, failing):
    observing = Observing(Recorder())
    observing.observation.begin(MESSAGE, startup)
    observing.observer.failing = failing
    observing.observation.desynchronize("a test")
    observing.observation.close(backend_ended=False)
    assert observing.faults == [("relay", failing)]


def test_observer_that_fails_when_it_is_closed_is_told_so_that_keys_are_removed(startup):
    observing = Observing(Recorder())
    observing.observation.begin(MESSAGE, startup)
    observing.observer.reasons.clear()
    observing.observer.failing = "closed"
    observing.observation.close(backend_ended=True)
    assert len(observing.observer.reasons) == 1


def test_session_whose_observer_cannot_be_made_is_cut_and_its_backend_gone(serve, database, backends):
    def fail(*_facts):
        raise Fault("observe")

    server = serve(fail)
    with pytest.raises(psycopg.OperationalError, match="server closed the connection"):
        server.connect(database)
    assert server.fault()[0] == "relay"
    assert server.wait(lambda server: server.traffic.sessions == 0)


def test_session_whose_observer_fails_at_its_end_ends_all_the_same(serve, database):
    observer = Recorder(failing="closed")
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT 'answered'")))
        assert b"answered" in read_until_ready(connection)
    assert server.wait(lambda server: server.traffic.sessions == 0)
    assert server.fault()[0] == "relay"
    assert len(observer.reasons) == 1


def test_session_with_a_startup_that_cannot_be_read_is_cut_when_its_observer_cannot_be_made(serve):
    def fail(*_facts):
        raise Fault("observe")

    def play(peer):
        peer.read_packet()
        peer.socket.sendall(b"\xff\0\0\0\4")
        assert peer.socket.recv(1) == b""

    with FakeServer(play) as fake:
        server = serve(fail, settings={"host": fake.host, "port": fake.port, "sslmode": "disable"})
        with server.dial() as connection:
            connection.sendall(startup_packet("anything"))
            read_to_end(connection)
    assert server.fault()[0] == "relay"
