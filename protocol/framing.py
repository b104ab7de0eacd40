"""Finds the messages in a stream of typed frames that arrives in arbitrary pieces.

Walks headers and hands positions to handlers; a message nobody wants costs neither an object nor a slice. Knows type
bytes and lengths only: what a body holds, and what a session makes of it, is for others. The untyped packets a
connection begins with are ``startup``'s.

A frame (manual, section "Message Flow") is a type byte, an Int32 length that counts itself and the body, and the body.
Nothing in it marks a boundary, so the scanner never guesses: a type it does not know or a length its type does not
allow means that the boundaries are lost, and it gives up for good rather than read something the peer does not mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocol.errors import FramingError
from protocol.message import HEADER

Handler = Callable[[bytes, int, int], None]
"""Called with (buffer, start, end): the body is ``buffer[start:end]``. The buffer is ``bytes`` and never changes, but
it may be a whole chunk of the stream: who keeps something for long copies it rather than hold the chunk."""

Oversize = Callable[[int, int, bytes], None]
"""Called with (type byte, length of the body, its first ``capacity`` bytes)."""

_unpack = HEADER.unpack_from
_HEADER_SIZE = HEADER.size
_ALIKE = 8
"""After so many messages of one type and length in a row, more of them are looked for,"""
_WORTHWHILE = 50
"""if the chunk has room for so many."""


class FrameScanner:
    """One direction of one connection.

    ``handlers`` has 256 entries by type byte, None for messages to skip. The list stays the caller's: a handler may
    change it, and the next message already finds the change. Whether a message is wanted is asked when its header is
    complete; its handler is looked up again when its body is.

    ``limits`` has 256 maximum lengths (as the length field counts), 0 for a type byte that does not exist.

    A wanted message whose body is longer than ``capacity`` bytes goes to ``oversize`` as soon as its first ``capacity``
    bytes are there, however the stream was cut; the rest is skipped. So at most ``capacity`` bytes are ever held.
    """

    __slots__ = (
        "_capacity",
        "_handlers",
        "_head",
        "_kind",
        "_length",
        "_limits",
        "_missing",
        "_oversize",
        "_partial",
        "_usable",
    )

    def __init__(
        self,
        handlers: Sequence[Handler | None],
        limits: Sequence[int],
        *,
        capacity: int = 262_144,
        oversize: Oversize,
    ) -> None:
        self._handlers = handlers
        self._limits = limits
        self._capacity = capacity
        self._oversize = oversize
        # Where the last chunk ended: within a header (its first 1 to 4 bytes are in _head), within a body (_missing
        # bytes are to come; _partial has those that came if the message is wanted), or between two messages.
        self._head = b""
        self._missing = 0
        self._partial: bytearray | None = None
        self._kind = 0
        self._length = 0
        self._usable = True

    @property
    def aligned(self) -> bool:
        """All bytes fed so far end with a whole message. Meaningful between two calls of ``feed``, not within."""
        return self._usable and not self._missing and not self._head

    def message_rest(self, data: bytes) -> int:
        """How many bytes of ``data``, if it were fed next, would belong to the message that the last chunk ended in.

        All of them where that cannot be told, because ``feed`` would refuse them or they do not tell its length yet.
        """
        if not self._head:
            return min(self._missing, len(data))
        header = self._head + data[: _HEADER_SIZE - len(self._head)]
        if len(header) < _HEADER_SIZE:
            return len(data)
        length: int = _unpack(header)[1]
        return len(data) if length < 4 else min(length + 1 - len(self._head), len(data))

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream and call the handlers of the messages they complete, in order.

        Raises ``FramingError`` for bytes that cannot be frames, and whatever a handler raises. After either the
        scanner is dead: what follows in the stream could only be misread, so every further call raises.
        """
        if not self._usable:
            raise FramingError("fed again after an error, or by one of its own handlers")
        self._usable = False
        pos = self._resume(data) if self._missing or self._head else 0
        handlers = self._handlers
        limits = self._limits
        longest = self._capacity + 4
        size = len(data)
        last = size - 4
        while pos < last:
            kind, length = _unpack(data, pos)
            # Read as unsigned, so that a negative length is beyond every limit.
            if length > limits[kind] or length < 4:
                raise _refusal(kind, length, limits[kind])
            handler = handlers[kind]
            if handler is None:
                pos += length + 1
                if pos < last and data[pos] == kind:
                    pos = _behind_run(data, pos, limits[kind])
                continue
            start = pos + 5
            pos += length + 1
            if pos <= size and length <= longest:
                handler(data, start, pos)
            else:
                self._begin(kind, length - 4, data, start)
        if pos > size:
            self._missing = pos - size
        elif pos < size:
            self._head = data[pos:]
        self._usable = True

    def _begin(self, kind: int, length: int, data: bytes, start: int) -> None:
        """A wanted message whose body begins at ``start`` is not all here, or is longer than we hold."""
        if length > self._capacity and len(data) - start >= self._capacity:
            self._oversize(kind, length, data[start : start + self._capacity])
            self._partial = None
        else:
            self._partial = bytearray(data[start:])
            self._kind = kind
            self._length = length

    def _resume(self, data: bytes) -> int:
        """Go on with the message the last chunk ended in; the position behind what of it is in ``data``."""
        pos = 0
        if self._head:
            head = self._head + data[: _HEADER_SIZE - len(self._head)]
            pos = len(head) - len(self._head)
            if len(head) < _HEADER_SIZE:
                self._head = head
                return pos
            self._head = b""
            kind, length = _unpack(head)
            if length > self._limits[kind] or length < 4:
                raise _refusal(kind, length, self._limits[kind])
            self._kind = kind
            self._length = self._missing = length - 4
            self._partial = None if self._handlers[kind] is None else bytearray()
        after = min(pos + self._missing, len(data))
        self._missing -= after - pos
        if self._partial is not None:
            self._extend(self._partial, data, pos, after)
        return after

    def _extend(self, partial: bytearray, data: bytes, pos: int, after: int) -> None:
        """More of a wanted body: ``data[pos:after]``. A bytearray grows in place, so many small chunks stay linear."""
        partial += data[pos : min(after, pos + self._capacity - len(partial))]
        if self._length > self._capacity:
            if len(partial) == self._capacity:
                self._partial = None
                self._oversize(self._kind, self._length, bytes(partial))
        elif not self._missing:
            self._partial = None
            handler = self._handlers[self._kind]
            if handler is not None:
                handler(bytes(partial), 0, len(partial))


def _behind_run(data: bytes, pos: int, limit: int) -> int:
    """Steps over messages of the type that begins at ``pos``: thousands of rows are stepped over at a time.

    Stops at another type, at a length that cannot be, and where the chunk ends, perhaps within a message.
    """
    last = len(data) - 4
    kind = data[pos]
    before = alike = 0
    while pos < last:
        found, length = _unpack(data, pos)
        if found != kind or length > limit or length < 4:
            break
        if length == before:
            alike += 1
            if alike == _ALIKE and last - pos > _WORTHWHILE * length:
                pos = _behind_alike(data, pos, length + 1)
                alike = 0
                continue
        else:
            before, alike = length, 0
        pos += length + 1
    return pos


def _behind_alike(data: bytes, pos: int, stride: int) -> int:
    """Steps over messages with the very header of the one at ``pos``, ``stride`` bytes each: every byte of every header
    is compared, but by slices. At least one message is stepped over, if it is whole."""
    header = data[pos : pos + _HEADER_SIZE]
    window = 32
    while True:
        count = min((len(data) - pos) // stride, window)
        run = count
        for offset in range(_HEADER_SIZE):
            column = data[pos + offset : pos + count * stride : stride]
            run = min(run, count - len(column.lstrip(header[offset : offset + 1])))
        pos += run * stride
        if run < window:
            return pos
        window *= 4


def _refusal(kind: int, length: int, limit: int) -> FramingError:
    if not limit:
        return FramingError(f"no message has the type byte 0x{kind:02x}")
    return FramingError(f"message of type {chr(kind)!r} with length {length}: allowed are 4 to {limit}")
