"""The admin endpoint over real sockets: every route, and clients that are not scrapers."""

import asyncio
import contextlib
import json

import pytest

from proxy.config.units import Address
from proxy.demo.servers import free_port
from proxy.process import admin
from proxy.process.admin import Admin


class Reports:
    """`AdminReports` that a test can choose."""

    def __init__(self):
        self.reasons = []
        self.failing = False

    async def status(self):
        if self.failing:
            raise RuntimeError("injected")
        return {"version": "1", "pending_changes": 0}

    async def not_ready(self):
        return self.reasons

    async def metrics(self):
        return b"# TYPE x gauge\nx 1\n"


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def errors():
    """What the endpoint reported, as (where, exception)."""
    return []


@pytest.fixture
def make(reports, errors):
    return lambda: Admin(reports, lambda where, error: errors.append((where, error)))


@pytest.fixture
async def address(make):
    address = Address("127.0.0.1", free_port())
    server = make()
    await server.start(address)
    yield address
    await server.close()


async def ask(address, request):
    """Everything the server says to these bytes, as (status line, headers, content)."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], dict(line.split(": ", 1) for line in lines[1:]), content


def get(path, method="GET", version="HTTP/1.1"):
    return f"{method} {path} {version}\r\nHost: x\r\n\r\n".encode()


async def test_metrics_are_prometheus_text(address):
    line, headers, content = await ask(address, get("/metrics"))
    assert line == "HTTP/1.1 200 OK"
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert int(headers["Content-Length"]) == len(content)
    assert content == b"# TYPE x gauge\nx 1\n"


async def test_healthz_is_200_while_not_ready(address, reports):
    reports.reasons = ["Redis cannot be reached"]
    assert (await ask(address, get("/healthz")))[0] == "HTTP/1.1 200 OK"


async def test_readyz_is_503_with_the_reasons_while_not_ready(address, reports):
    assert (await ask(address, get("/readyz")))[::2] == ("HTTP/1.1 200 OK", b"ready\n")
    reports.reasons = ["Redis cannot be reached", "draining"]
    line, _, content = await ask(address, get("/readyz"))
    assert line == "HTTP/1.1 503 Service Unavailable"
    assert content == b"Redis cannot be reached\ndraining\n"


async def test_status_is_json(address):
    line, headers, content = await ask(address, get("/status"))
    assert line == "HTTP/1.1 200 OK"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(content) == {"version": "1", "pending_changes": 0}


async def test_query_and_absolute_target_are_answered_by_their_path(address):
    assert (await ask(address, get("/healthz?full=1")))[0] == "HTTP/1.1 200 OK"
    assert (await ask(address, get("http://x:1/healthz")))[0] == "HTTP/1.1 200 OK"


async def test_head_is_answered_as_get_without_content(address):
    line, headers, content = await ask(address, get("/metrics", "HEAD"))
    assert line == "HTTP/1.1 200 OK"
    assert headers["Content-Length"] == "19"
    assert content == b""


async def test_other_methods_are_405_and_other_paths_404(address):
    line, headers, _ = await ask(address, get("/metrics", "POST"))
    assert line == "HTTP/1.1 405 Method Not Allowed"
    assert headers["Allow"] == "GET, HEAD"
    line, _, content = await ask(address, get("/"))
    assert line == "HTTP/1.1 404 Not Found"
    assert b"/status" in content


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/2\r\n\r\n",
        b"GET metrics HTTP/1.1\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\n\r\n",
        b"\xff\xfe\x00 / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n",
    ],
)
async def test_malformed_request_is_400(address, request_bytes):
    assert (await ask(address, request_bytes))[0] == "HTTP/1.1 400 Bad Request"


async def test_request_head_over_the_limit_is_431(address):
    line, _, _ = await ask(address, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000)
    assert line == "HTTP/1.1 431 Request Header Fields Too Large"


async def test_report_that_raises_is_500_and_an_internal_error_and_the_next_request_is_answered(
    address, reports, errors
):
    reports.failing = True
    line, _, content = await ask(address, get("/status"))
    assert line == "HTTP/1.1 500 Internal Server Error"
    assert content == b"internal server error\n"
    ((where, error),) = errors
    assert where == "admin"
    assert isinstance(error, RuntimeError)
    assert error.__traceback__ is not None
    reports.failing = False
    assert (await ask(address, get("/status")))[0] == "HTTP/1.1 200 OK"


async def test_client_that_goes_away_while_it_is_answered_is_no_internal_error(address, reports, errors):
    async def slow():
        await asyncio.sleep(0.05)
        return b"x" * 10_000_000

    reports.metrics = slow
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(get("/metrics"))
    await writer.drain()
    writer.transport.abort()
    await asyncio.sleep(0.2)
    assert errors == []
    assert (await ask(address, get("/healthz")))[0] == "HTTP/1.1 200 OK"


async def test_close_before_start_does_nothing(make):
    await make().close()


async def test_client_that_sends_no_whole_request_is_cut_after_the_timeout(address, monkeypatch):
    monkeypatch.setattr(admin, "TIMEOUT", 0.05)
    assert await ask_raw(address, b"GET /hea") == b""


async def test_client_over_the_limit_is_refused_and_the_next_served_when_others_leave(address, monkeypatch):
    monkeypatch.setattr(admin, "MAX_CLIENTS", 2)
    silent = [await asyncio.open_connection(address.host, address.port) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert await ask_raw(address, get("/healthz")) == b""
    for _, writer in silent:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert (await ask(address, get("/healthz")))[0] == "HTTP/1.1 200 OK"


async def test_close_cuts_clients_that_send_nothing(make):
    address = Address("127.0.0.1", free_port())
    server = make()
    await server.start(address)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    await asyncio.sleep(0.02)
    await asyncio.wait_for(server.close(), 2)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()


async def test_unix_socket_is_served_and_its_file_removed_at_close(make, tmp_path):
    path = str(tmp_path / "admin.sock")
    server = make()
    await server.start(Address("", 0, path))
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(get("/healthz"))
    assert (await reader.read()).endswith(b"ok\n")
    writer.close()
    await server.close()
    assert not (tmp_path / "admin.sock").exists()


async def ask_raw(address, request):
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()
