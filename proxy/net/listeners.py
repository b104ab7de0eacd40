"""Listening sockets: every address of a name, IPv4 and IPv6, Unix sockets."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.config.os_errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.config.units import Address

BACKLOG = 1024


class ListenError(Exception):
    """An address cannot be listened on; one line that names it and what to do."""


def listen(addresses: Iterable[Address]) -> list[socket.socket]:
    """Listen on all of them or on none. Raises ListenError."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            opened += _listen_unix(address) if address.path is not None else _listen_tcp(address)
    except BaseException:
        close(opened)
        raise
    return opened


def close(listeners: Iterable[socket.socket]) -> None:
    """Close them, and remove the files of Unix sockets."""
    for listener in listeners:
        if listener.family == socket.AF_UNIX and listener.fileno() >= 0:
            name = listener.getsockname()
            if isinstance(name, str) and name.startswith("/"):
                with contextlib.suppress(OSError):
                    Path(name).unlink()
        listener.close()


def _listen_tcp(address: Address) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {address}: {reason_of(error)}; correct proxy.listen") from None
    opened: list[socket.socket] = []
    port = address.port
    for family, kind, protocol, _, sockaddr in dict.fromkeys(found):
        try:
            opened.append(_bind(socket.socket(family, kind, protocol), (sockaddr[0], port, *sockaddr[2:])))
        except OSError as error:
            # A name may stand for an address family the machine has not; one that works is enough.
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and (opened or sockaddr != found[-1][4]):
                continue
            close(opened)
            raise _refusal(address, error) from None
        # With port 0 all addresses of a name get the same port.
        port = opened[0].getsockname()[1]
    return opened


def _bind(listener: socket.socket, sockaddr: tuple[object, ...]) -> socket.socket:
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(sockaddr)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _listen_unix(address: Address) -> list[socket.socket]:
    assert address.path is not None
    path = Path(address.path)
    _remove_stale(address, path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address.path)
        # As PostgreSQL's: the permissions of the directory decide who may connect.
        path.chmod(0o777)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _refusal(address, error) from None
    return [listener]


def _remove_stale(address: Address, path: Path) -> None:
    """Remove a socket file that no process listens on any more."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise _refusal(address, error) from None
    raise _refusal(address, OSError(errno.EADDRINUSE, "address already in use"))


def _refusal(address: Address, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        what = "is already in use; stop what listens there or set proxy.listen to another address"
    elif error.errno in (errno.EACCES, errno.EPERM):
        what = "is not permitted; set proxy.listen to a port above 1023 or a directory of your own"
    elif error.errno == errno.EADDRNOTAVAIL:
        what = "is not an address of this machine; correct proxy.listen"
    else:
        what = f"cannot be listened on: {reason_of(error)}; correct proxy.listen"
    return ListenError(f"{address} {what}")
