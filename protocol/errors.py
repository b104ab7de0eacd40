"""What goes wrong with bytes: every exception the codec raises is a ``ProtocolError``.

The texts name message types, lengths and positions only, never the bytes themselves, so they may be logged.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """The bytes are not what PostgreSQL's protocol allows; the base of all errors here."""


class FramingError(ProtocolError):
    """A header makes no sense: from here on nobody can say where the next message begins."""


class MessageError(ProtocolError):
    """A message's body is not what its type demands; the framing around it is intact."""


class StartupError(ProtocolError):
    """An untyped startup packet PostgreSQL would refuse, in its own words where it has some for the client."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        """With which PostgreSQL refuses it (FATAL); None where it closes the connection without a word."""


class EncodeError(ProtocolError):
    """A message of our own cannot be put into bytes: NUL inside a string, a number or a length out of range."""
