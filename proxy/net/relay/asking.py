"""A query of our own over the client's session, while it is under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy import logs
from proxy.net.relay.injected_query import InjectedQuery
from proxy.net.relay.observed import Observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.net.relay.observer import CatalogQuery
    from proxy.net.relay.phases import Control

QUERY_TIMEOUT = 5.0
"""Seconds a client waits for a query of ours; longer than the server's own limit for it."""

log = logs.get()


class Asking:
    """Takes the server's chunks from the moment the query is sent until its answer is complete.

    The client's chunks wait in the gate meanwhile, for ``QUERY_TIMEOUT`` at most. After that the client goes on and the
    query has no answer; what the server still says to it is kept from the client all the same.

    Args:
        held: what the client gets before anything else once the query is concluded: its first ReadyForQuery.
        on_done: called when the answer is complete; the argument says whether the server's bytes could be followed.
    """

    __slots__ = ("_held", "_injected", "_on_done", "_query", "_relay", "_timer")

    def __init__(self, relay: Control, query: CatalogQuery, held: bytes, on_done: Callable[[bool], None]) -> None:
        self._relay = relay
        self._query: CatalogQuery | None = query
        self._held = held
        self._on_done = on_done
        self._injected: InjectedQuery
        self._timer: asyncio.TimerHandle

    def begin(self) -> None:
        """Send the query and have the client wait."""
        assert self._query is not None
        try:
            self._injected = InjectedQuery(self._query.query)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._on_done(True)
            self._relay.observation_failed(error)
            self.release()
            return
        self._relay.gate.close()
        self._relay.backend.receive = self.backend
        self._send()
        self._timer = asyncio.get_running_loop().call_later(QUERY_TIMEOUT, self._late)

    def backend(self, data: bytes) -> None:
        """A chunk of the server's: its answer to us, and what it tells the client meanwhile."""
        injected = self._injected
        output = injected.feed(data)
        if injected.fatal or injected.lost:
            self.release()
        if output:
            self._relay.client.write(output)
            phase = self._relay.phase
            if isinstance(phase, Observed):
                phase.show_answer(output)
        self._send()
        if injected.done:
            self._on_done(not injected.lost)
            self.conclude(injected.result)
            if injected.rest:
                self._relay.backend.receive(injected.rest)

    def release(self) -> None:
        """Give the client what was held for it."""
        held, self._held = self._held, b""
        if held:
            self._relay.client.write(held)

    def conclude(self, result: bytes | None) -> None:
        """Hand over the answer and let the client go on. Only the first call has an effect."""
        query, self._query = self._query, None
        if query is None:
            return
        self._timer.cancel()
        try:
            query.answer(result)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)
        self.release()
        self._relay.gate.open()

    def _send(self) -> None:
        request, self._injected.to_send = self._injected.to_send, b""
        # Behind the client's end the server reads nothing: it ends the session, and with it what we left there.
        if request and not self._relay.gate.finished:
            self._relay.backend.write(request)

    def _late(self) -> None:
        log.warning("the catalog query was not answered in time", client=self._relay.peer, seconds=QUERY_TIMEOUT)
        self.conclude(None)
