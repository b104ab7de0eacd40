"""Listening: every address of a name, Unix sockets left behind, and refusals of one line."""

import errno
import socket
import tempfile
from pathlib import Path

import pytest

from proxy.config.units import Address, address
from proxy.net import listeners


def test_port_in_use_is_refused_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            listeners.ListenError, match=rf"127\.0\.0\.1:{port} is already in use; stop what .*"
        ) as error:
            listeners.listen([Address("127.0.0.1", 0), Address("127.0.0.1", port)])
        assert "\n" not in str(error.value)


def test_all_addresses_of_a_name_get_the_same_port():
    for host in ("localhost", ""):
        opened = listeners.listen([Address(host, 0)])
        ports = {listener.getsockname()[1] for listener in opened}
        listeners.close(opened)
        assert opened
        assert len(ports) == 1


@pytest.mark.parametrize(
    ("host", "words"), [("192.0.2.1", "is not an address of this machine"), ("no.invalid", "correct proxy.listen")]
)
def test_address_of_another_machine_is_refused_in_words(host, words):
    with pytest.raises(listeners.ListenError, match=words) as error:
        listeners.listen([Address(host, 6432)])
    assert host in str(error.value)


def test_unix_socket_is_refused_while_taken_and_replaced_when_stale():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rowtap-") as directory:
        place = address(f"{directory}:6432")
        assert place.path is not None
        opened = listeners.listen([place])
        with pytest.raises(listeners.ListenError, match="already in use"):
            listeners.listen([place])
        for listener in opened:
            listener.close()  # as a crash would: the file stays
        assert Path(place.path).exists()
        opened = listeners.listen([place])
        listeners.close(opened)
        assert not Path(place.path).exists()
        missing = address(f"{directory}/missing:6432")
        with pytest.raises(listeners.ListenError, match="no such file"):
            listeners.listen([missing])


def resolved(monkeypatch, *hosts):
    """Have every name stand for these addresses of this machine, or of another."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, 0)) for host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)


@pytest.mark.parametrize("hosts", [("198.51.100.1", "127.0.0.1"), ("127.0.0.1", "198.51.100.1")])
def test_one_usable_address_of_a_name_is_enough(monkeypatch, hosts):
    resolved(monkeypatch, *hosts)
    opened = listeners.listen([Address("some.name", 0)])
    assert [listener.getsockname()[0] for listener in opened] == ["127.0.0.1"]
    listeners.close(opened)


def test_name_without_a_usable_address_is_refused(monkeypatch):
    resolved(monkeypatch, "198.51.100.1", "203.0.113.1")
    with pytest.raises(listeners.ListenError, match="is not an address of this machine"):
        listeners.listen([Address("some.name", 0)])


def test_socket_file_of_another_kind_is_refused_and_stays():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rowtap-") as directory:
        place = address(f"{directory}:6432")
        assert place.path is not None
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(place.path)
            with pytest.raises(listeners.ListenError, match="cannot be listened on: protocol wrong type"):
                listeners.listen([place])
            assert Path(place.path).exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "is not permitted; set proxy.listen to a port above 1023"),
        (errno.EPERM, "is not permitted; set proxy.listen to a port above 1023"),
        (errno.EMFILE, "cannot be listened on: too many open files"),
    ],
)
def test_refusal_names_the_reason_and_what_to_do(monkeypatch, number, words):
    def refuse(listener, _sockaddr):
        listener.close()
        raise OSError(number, "refused")

    monkeypatch.setattr(listeners, "_bind", refuse)
    with pytest.raises(listeners.ListenError, match=words):
        listeners.listen([Address("127.0.0.1", 0)])


def test_unix_socket_without_a_file_is_closed():
    unbound = socket.socket(socket.AF_UNIX)
    listeners.close([unbound])
    assert unbound.fileno() == -1
