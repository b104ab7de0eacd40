"""A network with faults: a TCP link in front of any server, on either side of the proxy.

    link = faulty(postgres.host, postgres.port)            # the proxy's [postgres] points at link.port
    link.to_server.chunk = 1                               # every byte is its own segment
    link.to_client.cut_after, link.to_client.cut = 100, "reset"

`to_server` is the direction of the frontend's messages, `to_client` that of the backend's. A setting takes effect at
once, for open connections too. The link holds one piece of data at a time, so back-pressure passes through it.
"""

import asyncio
import contextlib
import functools
import socket
import struct
import threading
from typing import Literal

import pytest


@pytest.fixture
def faulty():
    """`faulty(host, port) -> FaultyLink`: a link to that server; closed when the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda host, port: stack.enter_context(contextlib.closing(FaultyLink(host, port)))


class Faults:
    """The faults of one direction. At most `chunk` bytes are sent at once, after a delay of `delay` seconds each.

    After `cut_after` bytes of a connection have passed, `cut` happens: "close" closes both sockets, "reset" does so by
    RST, "half-close" ends this direction only, "stall" keeps everything open and passes nothing more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.chunk: int | None = None
        self.delay = 0.0
        self.cut_after: int | None = None
        self.cut: Literal["close", "reset", "half-close", "stall"] = "close"
        self._loop = loop
        self._open = asyncio.Event()
        self._open.set()

    def stall(self) -> None:
        """Pass nothing until `go` is called; connections stay open and their bytes wait."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def go(self) -> None:
        """End a stall."""
        self._loop.call_soon_threadsafe(self._open.set)

    async def wait(self) -> None:
        """Wait until the next piece may pass."""
        await self._open.wait()
        if self.delay:
            await asyncio.sleep(self.delay)

    def size(self, passed: int) -> int:
        """How many bytes the next piece may have after `passed` bytes; 0 when the connection is to be cut."""
        size = self.chunk or 65536
        return size if self.cut_after is None else max(min(size, self.cut_after - passed), 0)


class FaultyLink:
    """Listens on `.host` and `.port` and relays to its target, with the faults of each direction."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self.to_server, self.to_client = Faults(self._loop), Faults(self._loop)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()[:2]
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),), daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """End every open connection by RST, on both sockets."""
        self._on_loop(self._end_connections("reset"))

    def drop(self) -> None:
        """Close every open connection normally, even within a message."""
        self._on_loop(self._end_connections("close"))

    def refuse(self) -> None:
        """Refuse new connections, as a server that is down does; open ones stay."""
        self._on_loop(self._stop_accepting())

    def close(self) -> None:
        """Close the listener and every connection."""
        self._on_loop(self._finish())
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()

    def _on_loop(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _main(self) -> None:
        self._finished = asyncio.Event()
        self._accepting = asyncio.create_task(self._accept())
        await self._finished.wait()

    async def _finish(self) -> None:
        await self._stop_accepting()
        await self._end_connections("close")
        self._finished.set()

    async def _stop_accepting(self) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._listener.close()

    async def _end_connections(self, how: str) -> None:
        tasks = dict(self._connections)
        for connection, task in tasks.items():
            connection.how = how
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())
            await asyncio.sleep(0)  # their done callbacks, which close the sockets, run one step later

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self.accepted += 1
            connection = _Connection(client)
            task = asyncio.create_task(connection.run(self.target, self.to_server, self.to_client))
            self._connections[connection] = task
            task.add_done_callback(functools.partial(self._forget, connection))

    def _forget(self, connection: "_Connection", _task: asyncio.Task[None]) -> None:
        # A done callback and not a `finally` in the coroutine: a task cancelled before its first step runs no code.
        del self._connections[connection]
        connection.close()


class _Connection:
    """The two sockets of one client's connection; `how` says how they are closed: "close" or "reset"."""

    def __init__(self, client: socket.socket) -> None:
        self.how = "close"
        self._client, self._server = client, socket.socket()

    async def run(self, target: tuple[str, int], to_server: Faults, to_client: Faults) -> None:
        loop = asyncio.get_running_loop()
        pumps: list[asyncio.Task[None]] = []
        try:
            for leg in (self._client, self._server):
                leg.setblocking(False)
                leg.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(self._server, target)
            pumps.append(asyncio.create_task(self._pump(self._client, self._server, to_server)))
            pumps.append(asyncio.create_task(self._pump(self._server, self._client, to_client)))
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            if any(isinstance(pump.exception(), OSError) for pump in done):
                self.how = "reset"  # as the lost peer would have done
        except OSError:
            self.how = "reset"
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: socket.socket, sink: socket.socket, faults: Faults) -> None:
        loop = asyncio.get_running_loop()
        passed = 0
        while data := await loop.sock_recv(source, 65536):
            while data:
                await faults.wait()
                size = faults.size(passed)
                if not size:
                    return await self._cut(sink, faults)
                await loop.sock_sendall(sink, data[:size])
                passed += len(data[:size])
                data = data[size:]
        sink.shutdown(socket.SHUT_WR)
        return None

    async def _cut(self, sink: socket.socket, faults: Faults) -> None:
        if faults.cut == "stall":
            await asyncio.Event().wait()
        elif faults.cut == "half-close":
            sink.shutdown(socket.SHUT_WR)
        else:
            self.how = faults.cut
            raise _CutError

    def close(self) -> None:
        """Close both sockets in the way `how` says."""
        for leg in (self._client, self._server):
            if self.how == "reset":
                # A linger time of zero makes close() send RST instead of FIN.
                leg.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leg.close()


class _CutError(Exception):
    """The connection has passed as many bytes as it was allowed to."""
