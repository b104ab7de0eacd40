"""The exceptions of the codec: each is a ``ProtocolError``.

Their texts name message types, lengths and positions only, never the bytes themselves, so they may be logged.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """The bytes are not what PostgreSQL's protocol allows; the base class of all errors here."""


class FramingError(ProtocolError):
    """A header is invalid: where the next message begins cannot be known."""


class MessageError(ProtocolError):
    """A body does not have the form its type demands; where the next message begins is still known."""


class StartupError(ProtocolError):
    """A startup packet which PostgreSQL would refuse; the text is PostgreSQL's where it sends one to the client."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        """SQLSTATE of PostgreSQL's refusal (FATAL); None where it closes the connection without an answer."""


class EncodeError(ProtocolError):
    """A message cannot be encoded: a NUL within a string, or a number or length out of range."""
