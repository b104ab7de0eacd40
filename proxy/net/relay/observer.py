"""What a relay asks of a session's observation. Shapes only: ``proxy.session`` has what fits them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable


class CatalogQuery(Protocol):
    """What an observed session wants to know of its database."""

    @property
    def query(self) -> bytes:
        """One SQL statement, in the session's encoding; all its names are found in pg_catalog."""

    def answer(self, payload: bytes | None) -> None:
        """Called once: the first column of all rows, concatenated, or None if there is no answer."""


class Observer(Protocol):
    """The observation of one session, from its first ReadyForQuery on.

    It raises nothing: what it cannot follow makes it blind. An exception is a fault of ours, for which the relay goes
    on without it.
    """

    @property
    def blinded(self) -> bool:
        """The session could not be followed."""

    @property
    def outstanding(self) -> bool:
        """There are requests without their answer."""

    @property
    def over_limit(self) -> bool:
        """So much is outstanding that no more of the client's should be read for now."""

    @property
    def answers_due(self) -> bool:
        """The server will answer all that is outstanding without hearing more of the client."""

    @property
    def between_messages(self) -> bool:
        """The client's bytes so far end with a whole message."""

    @property
    def before_commit(self) -> bool:
        """The client's bytes are shown before they are forwarded. Does not change."""

    @property
    def before_forwarding(self) -> Awaitable[object] | None:
        """What the bytes last given to ``frontend`` have to wait for; ends by itself in bounded time. None unless
        ``before_commit``."""

    def is_bulk(self, data: bytes) -> bool:
        """Of the client's next bytes, ``data``, nothing is to be remembered: COPY data, or amid one message."""

    def message_rest(self, data: bytes) -> int:
        """How many of the client's next bytes, ``data``, belong to a message that it has begun already."""

    def frontend(self, data: bytes) -> None:
        """The client's bytes."""

    def backend(self, data: bytes) -> None:
        """The server's bytes, after they went to the client."""

    def wants_catalog(self) -> CatalogQuery | None:
        """The catalog query, if the session is idle and is to ask it; then it is asked at once."""

    def desynchronize(self, reason: str) -> None:
        """Bytes went by that were not shown: the session is blind from here on."""

    def closed(self, *, backend_ended: bool) -> None:
        """Called once, last. ``backend_ended``: all the server had to say was seen, up to its end of stream."""
