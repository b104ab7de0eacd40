"""Geometric types in binary format, printed as PostgreSQL prints them under exact float digits."""

from __future__ import annotations

import struct

from cache.values.numbers import double


def point_text(value: bytes) -> bytes:
    """``(x,y)``."""
    return b"(%b,%b)" % _floats(value, 2)


def lseg_text(value: bytes) -> bytes:
    """``[(x1,y1),(x2,y2)]``."""
    return b"[(%b,%b),(%b,%b)]" % _floats(value, 4)


def box_text(value: bytes) -> bytes:
    """``(x1,y1),(x2,y2)``, the upper right corner first."""
    return b"(%b,%b),(%b,%b)" % _floats(value, 4)


def line_text(value: bytes) -> bytes:
    """``{A,B,C}``."""
    return b"{%b,%b,%b}" % _floats(value, 3)


def circle_text(value: bytes) -> bytes:
    """``<(x,y),r>``."""
    return b"<(%b,%b),%b>" % _floats(value, 3)


def path_text(value: bytes) -> bytes:
    """A byte that says whether the path is closed, printed as the kind of bracket, then the points."""
    if value[0] > 1:
        raise ValueError("neither closed nor open")
    return (b"(%b)" if value[0] else b"[%b]") % _points(value[1:])


def polygon_text(value: bytes) -> bytes:
    """The points in parentheses."""
    return b"(%b)" % _points(value)


def _points(value: bytes) -> bytes:
    (count,) = struct.unpack_from("!i", value)
    if count < 0 or len(value) != 4 + 16 * count:
        raise ValueError("not a list of points")
    return b",".join([b"(%b,%b)" % (double(x), double(y)) for x, y in struct.iter_unpack("!dd", value[4:])])


def _floats(value: bytes, count: int) -> tuple[bytes, ...]:
    return tuple([double(number) for number in struct.unpack(f"!{count}d", value)])
