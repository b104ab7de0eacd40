"""Bare sockets as clients: what drivers hide, a test sends and reads byte by byte."""

import socket
import time

from protocol import codes, frontend, startup

SELECT_1 = bytes(frontend.Query(b"SELECT 1"))
RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER with a timeout of 0: closing the socket resets the connection."""


def startup_packet(database, version=codes.PROTOCOL_3_0, **parameters):
    pairs = [(b"user", b"postgres"), (b"database", database.encode())]
    pairs += [(name.encode(), value.encode()) for name, value in parameters.items()]
    return bytes(startup.StartupMessage(version, tuple(pairs)))


def read_until_ready(connection, times=1):
    """All up to a ReadyForQuery at the end of a chunk, when there have been so many of them."""
    data = b""
    while data.count(b"Z\0\0\0\5") < times or data[-6:-1] != b"Z\0\0\0\5":
        chunk = connection.recv(65536)
        assert chunk, data
        data += chunk
    return data


def read_to_end(connection):
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def open_session(server, database):
    """A session of a `RunningServer`, ready for a query."""
    connection = server.dial()
    connection.sendall(startup_packet(database))
    read_until_ready(connection)
    return connection


def reset(connection):
    """Close it so that the other side sees an error instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def wait_for(condition, seconds=8.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
