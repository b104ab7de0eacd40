"""Finds the messages in a stream of typed frames that arrives in arbitrary pieces.

The scanner reads each header and calls the handler of the type byte with the position of the body. A message without a
handler costs neither an object nor a slice. Bodies are not decoded here. The startup packets at the beginning of a
connection have no type byte: ``startup`` reads those.

A frame (manual, section "Message Flow") is a type byte, an Int32 length that counts itself and the body, and the body.
Nothing in the stream marks where a frame begins. So an unknown type byte, or a length which the type does not allow,
means that the boundaries are lost: the scanner then refuses all further bytes instead of guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocol.errors import FramingError
from protocol.message import HEADER

Handler = Callable[[bytes, int, int], None]
"""Called with (buffer, start, end): the body is ``buffer[start:end]``. The buffer is ``bytes`` and never changes, but
it may be a whole chunk of the stream: a handler that keeps a part copies it, so that the chunk can be freed."""

Oversize = Callable[[int, int, bytes], None]
"""Called with (type byte, length of the body, its first ``capacity`` bytes)."""

_unpack = HEADER.unpack_from
_HEADER_SIZE = HEADER.size
_ALIKE = 8
"""After this many messages of equal type and length in a row, ``_behind_alike`` steps over more of them at once,"""
_WORTHWHILE = 50
"""if the rest of the chunk is longer than this many of them."""


class FrameScanner:
    """Finds the messages of one direction of one connection.

    ``handlers`` has 256 entries by type byte, None for messages to skip. The list belongs to the caller: a handler may
    change it, and the change holds from the next message on. Whether a message has a handler is checked when its header
    is complete; the handler is looked up again when its body is complete.

    ``limits`` has 256 maximum lengths (as the length field counts), 0 for a type byte that does not exist.

    A message with a handler whose body is longer than ``capacity`` bytes is given to ``oversize`` once its first
    ``capacity`` bytes have arrived; the rest is skipped. So at most ``capacity`` bytes are held at any time.
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
        # bytes are still to come; _partial has those that came if the message has a handler), or between two messages.
        self._head = b""
        self._missing = 0
        self._partial: bytearray | None = None
        self._kind = 0
        self._length = 0
        self._usable = True

    @property
    def aligned(self) -> bool:
        """The bytes fed so far end with a complete message. Not valid during a call of ``feed``."""
        return self._usable and not self._missing and not self._head

    def message_rest(self, data: bytes) -> int:
        """How many bytes of ``data``, if fed next, would belong to the message within which the last chunk ended.

        ``len(data)`` where that is unknown: ``feed`` would refuse the header, or the header is not complete yet.
        """
        if not self._head:
            return min(self._missing, len(data))
        header = self._head + data[: _HEADER_SIZE - len(self._head)]
        if len(header) < _HEADER_SIZE:
            return len(data)
        length: int = _unpack(header)[1]
        return len(data) if length < 4 else min(length + 1 - len(self._head), len(data))

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the stream and call the handlers of the messages they complete, in order.

        Raises ``FramingError`` for an invalid header, and passes on what a handler raises. After either, every further
        call raises ``FramingError``: the position in the stream is lost.
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
            # The length is read as unsigned: a negative one is above every limit.
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
        """Begin a message with a handler whose body, from ``start`` on, is incomplete or longer than ``capacity``."""
        if length > self._capacity and len(data) - start >= self._capacity:
            self._oversize(kind, length, data[start : start + self._capacity])
            self._partial = None
        else:
            self._partial = bytearray(data[start:])
            self._kind = kind
            self._length = length

    def _resume(self, data: bytes) -> int:
        """Continue the message within which the last chunk ended. Returns the position behind its part in ``data``."""
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
        """Append ``data[pos:after]`` to a body. A bytearray grows in place, so many small chunks take linear time."""
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
    """The position behind the messages that have the type of the one at ``pos``, to skip thousands of rows fast.

    Stops at another type, at an invalid length, and at the end of the chunk, perhaps within a message.
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
    """The position behind the messages whose header equals that of the one at ``pos``; each has ``stride`` bytes.

    Compares every byte of every header, by slices with a step. Steps over at least one message, if it is complete.
    """
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
