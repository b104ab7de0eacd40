"""PostgreSQL's frontend/backend protocol, version 3 (3.0 and 3.2), as a pure codec: bytes in, values out, and back.

Standard library only; no sockets, no logging, no idea of sessions or SQL. Its words are the manual's:

frontend, backend   who *sent* a message; the same type byte means different things by direction
startup packet      what a connection begins with: no type byte, only a length (``startup``)
message             type byte, length, body (``frontend``, ``backend``, ``authentication``, ``copy_data``)
frame               a message as bytes, whatever it says (``framing``)
body                what follows the length; messages decode from their body alone
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
