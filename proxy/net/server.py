"""The sockets of one worker: accepts connections, registers every session and task, and ends them in order.

What a session's traffic means is not known here: ``observe`` makes the observer that knows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import itertools
import socket
from typing import TYPE_CHECKING, Any

from proxy import logs
from proxy.config.os_errors import reason_of
from proxy.metrics import Traffic
from proxy.net import tls
from proxy.net.backend_connection import Backend
from proxy.net.client_connection import Connection
from proxy.net.dial import UnreachableError, tune
from proxy.net.startup import cancel_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Sequence

    from proxy.config.sections import PostgresSection, ProxySection
    from proxy.net.dial import ServerAddress
    from proxy.net.relay.observer import Observer
    from proxy.net.relay.relay import Relay

BURST = 64
"""Connections accepted in one turn of the event loop, when no other worker wants a share."""
ACCEPT_PAUSE = 0.5
"""Seconds without accepting after the process ran out of file descriptors or memory."""
END_TIMEOUT = 5.0
"""Seconds that sessions told to end may take before they are cut."""
CANCEL_TIMEOUT = 1.0
"""Seconds in which the statements of sessions that were cut can be cancelled."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logs.get()


class Server:
    """One worker's clients and their connections to PostgreSQL.

    ``listeners`` are the caller's to open and close. ``observe`` is called as ``relay.RelayHost`` says; ``shared`` if
    other workers accept from the same sockets. Raises TlsError if certificates cannot be used.
    """

    def __init__(
        self,
        proxy: ProxySection,
        postgres: PostgresSection,
        observe: Callable[[str, str, dict[str, str], dict[str, str]], Observer | None],
        listeners: Sequence[socket.socket],
        *,
        shared: bool = False,
        on_internal_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self.observe = observe
        self.on_internal_error = on_internal_error or _log_internal_error
        """Told of exceptions that no rule expects; see ``cache.counts.ErrorReport``."""
        self.traffic = Traffic()
        self.postgres_up = True
        self._listeners = list(listeners)
        self._burst = 1 if shared else BURST
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays: dict[Relay, tuple[ServerAddress, bytes | None]] = {}
        self._addresses: dict[bytes, ServerAddress] = {}
        self._connections = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._accepting = False
        self._pause: asyncio.TimerHandle | None = None
        self._own_certificate: bytes | None = None
        self._warned = False
        self.configure(proxy, postgres)

    def configure(self, proxy: ProxySection, postgres: PostgresSection) -> None:
        """Take settings over for connections to come: limits, TLS files and the way to PostgreSQL. Raises TlsError
        and changes nothing if they cannot be used."""
        client_tls = tls.client_context(proxy.tls) if proxy.tls is not None else None
        own_certificate = tls.own_certificate(proxy.tls) if proxy.tls is not None else None
        backend = Backend(postgres, tls.backend_context(postgres), self._certificate_seen)
        self.backend = backend
        self.client_tls: ssl.SSLContext | None = client_tls
        self.tls_required = proxy.tls is not None and proxy.tls.required
        self.login_timeout = proxy.client_login_timeout
        self._max_connections = proxy.max_connections
        self._own_certificate = own_certificate
        self._warned = False

    def carried(self) -> Traffic:
        """What the sockets carried up to now, open sessions included."""
        found = dataclasses.replace(self.traffic)
        for relay in self._relays:
            found.client_bytes += relay.client.received
            found.backend_bytes += relay.backend.received
        return found

    # Life.

    def start(self) -> None:
        """Accept connections from now on."""
        if not self._accepting:
            self._accepting = True
            self._listen()

    def stop_accepting(self) -> None:
        """Accept no more; sessions go on. Another process may accept from the same listeners."""
        if self._accepting:
            self._accepting = False
            self._listen_no_more()

    async def drain(self, patience: float) -> None:
        """Stop accepting and return when the last session has ended. After ``patience`` seconds those left are told to
        end, and cut if that takes them too long."""
        self.stop_accepting()
        if await self._quiet_within(patience):
            return
        log.info("sessions still open at the deadline are ended", sessions=self.traffic.sessions)
        for relay in list(self._relays):
            relay.terminate()
        if not await self._quiet_within(END_TIMEOUT):
            await self.close()

    async def close(self) -> None:
        """Cut all sessions and logins now, and cancel the statements that are left without a client."""
        self.stop_accepting()
        cut = list(self._relays.items())
        for relay, _ in cut:
            relay.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cancel_all([(key, address) for _, (address, key) in cut if key is not None])
        # Transports report their end in a turn of their own.
        await self._quiet_within(1.0)

    async def _cancel_all(self, sessions: list[tuple[bytes, ServerAddress]]) -> None:
        # PostgreSQL notices a closed connection when it next writes to it, which may be hours away.
        tasks = [self.spawn(self._cancel(key, address), "cancel") for key, address in sessions]
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _quiet_within(self, seconds: float) -> bool:
        waiting = asyncio.ensure_future(self._quiet.wait())
        try:
            await asyncio.wait((waiting,), timeout=seconds)
        finally:
            waiting.cancel()
        return self._quiet.is_set()

    # Accepting.

    def _listen(self) -> None:
        self._pause = None
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener, self._accept, listener)

    def _listen_no_more(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(self._burst):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    log.warning("accepting failed", reason=reason_of(error))
                    return
                log.error("no resources for another connection", reason=reason_of(error), open=self._connections)
                self._listen_no_more()
                self._pause = asyncio.get_running_loop().call_later(ACCEPT_PAUSE, self._listen)
                return
            self._welcome(accepted, address)

    def _welcome(self, accepted: socket.socket, address: Any) -> None:
        if self._connections - self.traffic.sessions > 2 * self._max_connections + BURST:
            # So many that say nothing cannot be clients; PostgreSQL's limit is of the same kind.
            log.warning("connection refused", client=_peer(accepted, address), reason="too many unfinished logins")
            accepted.close()
            return
        tune(accepted)
        self.traffic.accepted += 1
        self._connections += 1
        self._quiet.clear()
        peer = _peer(accepted, address)
        self.spawn(self._serve(Connection(self, accepted, peer)), f"login {next(self._numbers)}")

    async def _serve(self, connection: Connection) -> None:
        try:
            relayed = await connection.run()
        except BaseException:
            self._gone()
            raise
        if not relayed:
            self._gone()

    def _gone(self) -> None:
        self._connections -= 1
        if not self._connections:
            self._quiet.set()

    # What connections ask.

    def admit(self) -> bool:
        """See ``client_connection.ConnectionHost``."""
        if self.traffic.sessions >= self._max_connections:
            return False
        self.traffic.sessions += 1
        return True

    def leave(self) -> None:
        """See ``client_connection.ConnectionHost``."""
        self.traffic.sessions -= 1

    def address_of(self, key: bytes) -> ServerAddress | None:
        """See ``client_connection.ConnectionHost``."""
        return self._addresses.get(key)

    def relaying(self, relay: Relay, address: ServerAddress) -> None:
        """See ``client_connection.ConnectionHost``."""
        self._relays[relay] = (address, None)

    # What relays ask.

    def spawn(self, coroutine: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run a task; the register holds it until it ends, and its failure is reported as a fault of ours."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_internal_error("server", error)

    def started(self, relay: Relay, key: bytes | None) -> None:
        """See ``relay.RelayHost``."""
        address, _ = self._relays[relay]
        self._relays[relay] = (address, key)
        if key is not None:
            self._addresses[key] = address

    def cancel(self, relay: Relay, key: bytes) -> None:
        """See ``relay.RelayHost``."""
        self.traffic.cancels += 1
        address, _ = self._relays[relay]
        self.spawn(self._cancel(key, address), "cancel")

    async def _cancel(self, key: bytes, address: ServerAddress) -> None:
        try:
            await self.backend.cancel(cancel_request(key), address)
        except UnreachableError as error:
            log.warning("a statement without its client could not be cancelled", reason=str(error))

    def ended(self, relay: Relay) -> None:
        """See ``relay.RelayHost``."""
        _, key = self._relays.pop(relay)
        self.traffic.client_bytes += relay.client.received
        self.traffic.backend_bytes += relay.backend.received
        if key is not None:
            self._addresses.pop(key, None)
        self.leave()
        self._gone()

    def _certificate_seen(self, certificate: bytes) -> None:
        """Channel binding hashes the server's certificate as its client sees it."""
        if self._warned or self._own_certificate is None or certificate == self._own_certificate:
            return
        self._warned = True
        log.warning(
            "clients that use TLS see another certificate than PostgreSQL's, so SCRAM with channel binding fails; "
            "let proxy.tls use the server's own certificate and key, or clients connect with channel_binding=disable"
        )


def _log_internal_error(where: str, error: BaseException) -> None:
    log.error("internal error", where=where, exc_info=error)


def _peer(accepted: socket.socket, address: Any) -> str:
    if accepted.family == socket.AF_UNIX:
        return "local"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
