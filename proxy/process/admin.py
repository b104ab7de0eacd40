"""The admin endpoint: GET /metrics /healthz /readyz /status over HTTP, one request for each connection.

Scrapers and health checks need no web framework. A client costs at most ``MAX_HEAD`` bytes and ``TIMEOUT`` seconds, and
no more than ``MAX_CLIENTS`` are served at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cache.counts import ErrorReport
    from proxy.config.units import Address

MAX_HEAD = 8192
MAX_CLIENTS = 64
TIMEOUT = 5.0
"""Seconds for a whole request, from the connection to the last byte of the answer."""

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


class AdminReports(Protocol):
    """What the endpoint answers with. Each may be asked for at any time, also several times at once."""

    async def status(self) -> Mapping[str, object]:
        """The object of ``/status``."""

    async def not_ready(self) -> list[str]:
        """Why no session should be sent here now, one line each; empty when ready."""

    async def metrics(self) -> bytes:
        """The text of ``/metrics``."""


class _Answer:
    """One HTTP response."""

    def __init__(
        self, status: HTTPStatus, content: bytes, kind: str = _TEXT, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.content = content
        self.headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Connection": "close",
            **(headers or {}),
        }

    def encode(self, *, with_content: bool) -> bytes:
        head = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return head.encode("ascii") + b"\r\n" + (self.content if with_content else b"")


class Admin:
    """The endpoint's server."""

    def __init__(self, reports: AdminReports, on_internal_error: ErrorReport) -> None:
        self._reports = reports
        self._on_internal_error = on_internal_error
        self._server: asyncio.Server | None = None
        self._path: str | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._routes: dict[str, Callable[[], Awaitable[_Answer]]] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status": self._status,
        }

    async def start(self, address: Address) -> None:
        """Listen. Raises OSError when the address cannot be listened on."""
        if address.path is not None:
            self._path = address.path
            self._server = await asyncio.start_unix_server(self._serve_client, address.path, limit=MAX_HEAD)
        else:
            self._server = await asyncio.start_server(
                self._serve_client, address.host or None, address.port, limit=MAX_HEAD
            )

    async def close(self) -> None:
        """Stop listening and cut the connections of clients that are being answered."""
        if self._server is None:
            return
        self._server.close()
        clients = list(self._clients)
        for task in clients:
            task.cancel()
        if clients:
            await asyncio.wait(clients)
        await self._server.wait_closed()
        if self._path is not None:
            _remove(self._path)

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MAX_CLIENTS:
            writer.transport.abort()
            return
        self._clients.add(task)
        try:
            async with asyncio.timeout(TIMEOUT):
                writer.write(await self._response(reader))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _response(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE).encode(with_content=True)
        method, answer = await self._answer(head.partition(b"\r\n")[0])
        return answer.encode(with_content=method != "HEAD")

    async def _answer(self, request_line: bytes) -> tuple[str, _Answer]:
        try:
            method, target, version = request_line.decode("ascii").split(" ")
            path = urlsplit(target).path
        except ValueError:
            return "", _failure(HTTPStatus.BAD_REQUEST)
        if version not in {"HTTP/1.0", "HTTP/1.1"} or not path.startswith("/"):
            return "", _failure(HTTPStatus.BAD_REQUEST)
        route = self._routes.get(path)
        if route is None:
            return method, _Answer(HTTPStatus.NOT_FOUND, f"not here; try {' '.join(self._routes)}\n".encode())
        if method not in {"GET", "HEAD"}:
            return method, _failure(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        try:
            return method, await route()
        except Exception as error:  # noqa: BLE001 - reported; the client gets an answer whatever is wrong
            self._on_internal_error("admin", error)
            return method, _failure(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _metrics(self) -> _Answer:
        return _Answer(HTTPStatus.OK, await self._reports.metrics(), CONTENT_TYPE_LATEST)

    async def _healthz(self) -> _Answer:
        """An answer is all a liveness check needs to know: the event loop runs."""
        return _Answer(HTTPStatus.OK, b"ok\n")

    async def _readyz(self) -> _Answer:
        reasons = await self._reports.not_ready()
        if not reasons:
            return _Answer(HTTPStatus.OK, b"ready\n")
        return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons).encode())

    async def _status(self) -> _Answer:
        content = json.dumps(await self._reports.status(), indent=2, ensure_ascii=False)
        return _Answer(HTTPStatus.OK, content.encode() + b"\n", _JSON)


def _remove(path: str) -> None:
    """asyncio before 3.13 and uvloop leave the socket file of a closed server behind."""
    Path(path).unlink(missing_ok=True)


def _failure(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(status, f"{status.phrase.lower()}\n".encode(), headers=headers)
