"""Listening: every address of a name, Unix sockets left behind, and refusals of one line."""

import socket
import tempfile
from pathlib import Path

import pytest

from proxy.config.units import Address, address
from proxy.net import listeners


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            listeners.ListenError, match=rf"127\.0\.0\.1:{port} is already in use; stop what .*"
        ) as error:
            listeners.listen([Address("127.0.0.1", 0), Address("127.0.0.1", port)])
        assert "\n" not in str(error.value)


def test_every_address_of_a_name_and_of_the_machine():
    for host in ("localhost", ""):
        opened = listeners.listen([Address(host, 0)])
        ports = {listener.getsockname()[1] for listener in opened}
        listeners.close(opened)
        assert opened
        assert len(ports) == 1


@pytest.mark.parametrize(
    ("host", "words"), [("192.0.2.1", "is not an address of this machine"), ("no.invalid", "correct proxy.listen")]
)
def test_an_address_that_is_not_ours(host, words):
    with pytest.raises(listeners.ListenError, match=words) as error:
        listeners.listen([Address(host, 6432)])
    assert host in str(error.value)


def test_unix_sockets_stale_and_taken():
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
