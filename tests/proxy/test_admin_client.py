"""One GET request, over TCP and over a Unix socket, and what becomes of answers that are none."""

import http.server
import socket
import socketserver
import threading

import pytest

from proxy import admin_client
from proxy.admin_client import AdminError
from proxy.demo.servers import HOST, free_port


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/status" else 404)
        self.end_headers()
        self.wfile.write(b"content of " + self.path.encode())

    def address_string(self):
        return "unix"

    def log_message(self, *_facts):
        pass


class UnixServer(socketserver.UnixStreamServer):
    server_name, server_port = "localhost", 0


@pytest.fixture(params=["tcp", "unix"])
def get(request, tmp_path):
    """`get(path)` from a server that knows /status only."""
    if request.param == "tcp":
        server: socketserver.TCPServer = http.server.HTTPServer((HOST, 0), Handler)
        port, socket_path = server.server_address[1], None
    else:
        port, socket_path = 1, str(tmp_path / "admin")
        server = UnixServer(socket_path, Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield lambda path: admin_client.get(HOST, port, path, socket_path=socket_path, timeout=5)
    server.shutdown()
    server.server_close()
    thread.join()


def test_content_is_returned_when_the_status_is_200(get):
    assert get("/status") == b"content of /status"


def test_another_status_is_an_error_that_names_it(get):
    with pytest.raises(AdminError, match="GET /nothing answered 404"):
        get("/nothing")


@pytest.mark.parametrize("answer", [b"", b"no HTTP at all\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"])
def test_an_answer_that_is_not_http_is_an_error(answer):
    with socket.create_server((HOST, 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(AdminError, match="GET /status has no answer"):
            admin_client.get(HOST, listener.getsockname()[1], "/status", timeout=5)
        thread.join()


def test_a_silent_endpoint_is_an_error_after_the_timeout():
    with socket.create_server((HOST, 0)) as listener, pytest.raises(AdminError, match="timed out"):
        admin_client.get(HOST, listener.getsockname()[1], "/status", timeout=0.1)


@pytest.mark.parametrize("socket_path", [None, "/nowhere/admin"])
def test_an_endpoint_that_is_not_there_is_an_error(socket_path):
    with pytest.raises(AdminError, match="GET /status has no answer"):
        admin_client.get(HOST, free_port(), "/status", socket_path=socket_path, timeout=5)
