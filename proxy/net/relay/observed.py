"""The phases in which a session's chunks are shown to its observer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from protocol.frontend import FLUSH_FRAME

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from proxy.net.relay.observer import CatalogQuery, Observer
    from proxy.net.relay.phases import Control

SAMPLED = 15
"""Of the server's chunks one in this many plus one is timed."""
SLICE = 16_384
"""Bytes of a client's requests that go at once."""


class Observed:
    """Chunks are forwarded and then shown to the observer.

    ``frontend`` and ``backend`` see every chunk of most sessions: what they cost, each statement pays.

    A client that runs far ahead of its server has to wait, because what is unanswered must be remembered. The two must
    not end up waiting for each other: the server sends its answers with ReadyForQuery, and before that when told to
    Flush (manual, "Extended Query"). A Flush is put in where a message of the client's ends; it is owed no answer.
    """

    __slots__ = ("_backend", "_chunks", "_client", "_gate", "_observer", "_relay")

    logged_in = True

    def __init__(self, relay: Control, observer: Observer) -> None:
        self._relay = relay
        self._client = relay.client
        self._backend = relay.backend
        self._gate = relay.gate
        self._observer = observer
        self._chunks = 0

    def frontend(self, data: bytes) -> None:
        if len(data) > SLICE and not self._is_bulk(data):
            self._forward_in_slices(data)
            return
        self._backend.write(data)
        try:
            self._observer.frontend(data)
            if self._observer.over_limit:
                self._stop_client()
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)

    def backend(self, data: bytes) -> None:
        self._chunks += 1
        if self._chunks & SAMPLED:
            self._client.write(data)
        else:
            began = time.perf_counter()
            self._client.write(data)
            self._relay.traffic.latency.add(time.perf_counter() - began)
        try:
            self._observer.backend(data)
            gate = self._gate
            if gate.over_limit and not self._observer.over_limit:
                gate.resume_client()
            if not gate.ended:
                query = self._observer.wants_catalog()
                if query is not None:
                    self._relay.ask(query)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)

    @property
    def busy(self) -> bool:
        return self._observer.blinded or self._observer.outstanding

    @property
    def between_messages(self) -> bool:
        return not self.busy

    def server_ended(self) -> None:
        """Nothing was kept back."""

    # Chunks that were forwarded already.

    def show_early(self, data: bytes) -> None:
        """What the client sent ahead of the first ReadyForQuery."""
        try:
            self._observer.frontend(data)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)

    def show_answer(self, data: bytes) -> None:
        """What of the server's went to the client while a query of ours was under way."""
        try:
            self._observer.backend(data)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)

    def wanted_query(self) -> CatalogQuery | None:
        """The query to be asked before the client gets its first ReadyForQuery."""
        try:
            return None if self._gate.ended else self._observer.wants_catalog()
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)
            return None

    # A client that is over its limit.

    def _is_bulk(self, data: bytes) -> bool:
        try:
            return self._observer.is_bulk(data)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)
            return False

    def _forward_in_slices(self, data: bytes) -> None:
        """So many small requests may be in one chunk that the client must wait in the middle of it."""
        for start in range(0, len(data), SLICE):
            if not self._gate.is_open:
                self._gate.put_off(data[start:])
                return
            self._client.receive(data[start : start + SLICE])

    def _stop_client(self) -> None:
        if not self._observer.answers_due:
            if not self._observer.between_messages:
                self._gate.pass_to(self._end_message)
                return
            self._backend.write(FLUSH_FRAME)
        self._gate.stop_client()

    def _end_message(self, data: bytes) -> None:
        """What ends the client's unfinished message goes first; then is the moment to make it wait, if need be."""
        self._gate.pass_to(self.frontend)
        try:
            rest = self._observer.message_rest(data)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)
            rest = len(data)
        self._client.receive(data[:rest])
        if rest < len(data):
            self._client.receive(data[rest:])


class ObservedBeforeForwarding(Observed):
    """The client's chunks are shown first and forwarded when the keys they may change are gone from Redis."""

    __slots__ = ()

    def frontend(self, data: bytes) -> None:
        try:
            self._observer.frontend(data)
            awaited = self._observer.before_forwarding
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._backend.write(data)
            self._relay.observation_failed(error)
            return
        if awaited is None:
            self._forward(data)
        else:
            self._gate.close()
            self._relay.spawn(self._forward_after(awaited, data), "before forwarding")

    def show_early(self, data: bytes) -> None:
        super().show_early(data)
        awaited = self._observer.before_forwarding
        if awaited is not None:
            # The bytes went with the startup packet, so nothing waits for it.
            self._relay.spawn(self._finish(awaited), "before forwarding")

    async def _finish(self, awaited: Awaitable[object]) -> None:
        try:
            await awaited
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)

    def _forward(self, data: bytes) -> None:
        self._backend.write(data)
        try:
            if self._observer.over_limit:
                self._stop_client()
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._relay.observation_failed(error)

    async def _forward_after(self, awaited: Awaitable[object], data: bytes) -> None:
        try:
            await awaited
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self._backend.write(data)
            self._relay.observation_failed(error)
        else:
            if self._relay.phase is self:
                self._forward(data)
            else:
                # The observation failed meanwhile.
                self._backend.write(data)
        if not self._gate.over_limit:
            self._gate.open()
