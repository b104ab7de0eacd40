"""A session on a database without rules: only relayed, and counted while it is open."""

from __future__ import annotations


class UnobservedSession:
    """What the relay is given for such a session, in place of a ``Session``.

    ``open_sessions`` counts them by database and is changed here. A reload may bring rules for the database while the
    session is open: its writes would not be seen then, so no row of the database fills before it has ended.
    """

    blinded = True
    outstanding = over_limit = answers_due = between_messages = before_commit = False
    before_forwarding = None

    def __init__(self, open_sessions: dict[str, int], database: str) -> None:
        self._open_sessions = open_sessions
        self._database = database
        open_sessions[database] = open_sessions.get(database, 0) + 1

    def desynchronize(self, reason: str) -> None:
        """Nothing was followed."""

    def frontend(self, data: bytes) -> None:
        """Nothing is read."""

    def backend(self, data: bytes) -> None:
        """Nothing is read."""

    def is_bulk(self, data: bytes) -> bool:
        """No request is remembered."""
        return True

    def message_rest(self, data: bytes) -> int:
        """Messages are not told apart."""
        return len(data)

    def wants_catalog(self) -> None:
        """It has no catalog to learn."""

    def closed(self, *, backend_ended: bool) -> None:
        """The session ended."""
        self._open_sessions[self._database] -= 1
        if not self._open_sessions[self._database]:
            del self._open_sessions[self._database]
