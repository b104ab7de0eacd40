"""Sessions through a running proxy for tests that decide about every message and about how a connection ends."""

import contextlib
import socket
import struct
from typing import TypeVar

from protocol import backend, codes, startup
from protocol.message import Message
from tests.script import Client

Kind = TypeVar("Kind", bound=Message)


def log_in(proxy, **parameters):
    """A session as `postgres` in the proxy's database."""
    client = Client(proxy.host, proxy.port)
    client.log_in("postgres", proxy.database, **parameters)
    return client


def start_packet(database, *messages):
    """The bytes of a StartupMessage and of the messages behind it."""
    pairs = ((b"user", b"postgres"), (b"database", database.encode()))
    return b"".join(map(bytes, (startup.StartupMessage(codes.PROTOCOL_3_0, pairs), *messages)))


def await_message(client: Client, kind: type[Kind]) -> Kind:
    """Read up to the first message of this class and return it."""
    found = client.receive_until(kind)[-1]
    assert isinstance(found, kind)
    return found


def values(messages) -> list[list[bytes]]:
    """The values of the DataRows among the messages; NULL becomes an empty value."""
    rows = [message for message in messages if isinstance(message, backend.DataRow)]
    return [[value or b"" for value in row.values] for row in rows]


def reset(client):
    """End the connection by RST, as when the client's machine restarts."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def read_to_end(connection):
    """All bytes up to the end of the stream or a reset."""
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            data += chunk
    return bytes(data)
