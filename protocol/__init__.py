"""PostgreSQL's frontend/backend protocol, version 3 (3.0 and 3.2), as a pure codec: it decodes bytes and encodes them.

Uses the standard library only; has no sockets, no logging, and does not know sessions or SQL. Terms, as in the manual:

frontend, backend   who *sent* a message; the same type byte means different things by direction
startup packet      the first message of a connection: it has a length but no type byte (``startup``)
message             type byte, length, body (``frontend``, ``backend``, ``authentication``, ``copy_data``)
frame               the bytes of one message, not decoded (``framing``)
body                the bytes behind the length; a message is decoded from its body alone
format code         0 text, 1 binary (``codes``)
prepared statement  made by Parse, named or unnamed
portal              a prepared statement with parameters, made by Bind, run by Execute
pipeline            extended-protocol messages up to Sync, which one ReadyForQuery answers
ReadyForQuery       carries the transaction status: I idle, T in a transaction, E in a failed one
"""

from protocol import authentication, backend, codes, copy_data, frontend, startup, tracing
from protocol.errors import EncodeError, FramingError, MessageError, ProtocolError, StartupError
from protocol.framing import FrameScanner, Handler, Oversize
from protocol.message import Message

__all__ = [
    "EncodeError",
    "FrameScanner",
    "FramingError",
    "Handler",
    "Message",
    "MessageError",
    "Oversize",
    "ProtocolError",
    "StartupError",
    "authentication",
    "backend",
    "codes",
    "copy_data",
    "frontend",
    "startup",
    "tracing",
]
