"""The admin endpoint asked from another process: one GET request, as ``warm`` and the demo need it."""

from __future__ import annotations

import contextlib
import http.client
import socket


class AdminError(Exception):
    """The endpoint cannot be reached, or does not answer with status 200; the message says which."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(host: str, port: int, path: str, *, socket_path: str | None = None, timeout: float) -> bytes:
    """The content of ``path``, over the Unix socket ``socket_path`` where there is one. Blocks.

    ``timeout`` in seconds is for each wait on the socket. Raises ``AdminError``.
    """
    connection = (
        http.client.HTTPConnection(host, port, timeout=timeout)
        if socket_path is None
        else _UnixConnection(socket_path, timeout)
    )
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(f"GET {path} has no answer: {error or type(error).__name__}") from None
    if response.status != http.client.OK:
        raise AdminError(f"GET {path} answered {response.status}")
    return content
