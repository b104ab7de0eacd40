"""Numbers in binary format, printed as PostgreSQL prints them. What a float is in text: the shortest that is exact."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_INT2 = struct.Struct("!h")
_INT4 = struct.Struct("!i")
_INT8 = struct.Struct("!q")
_UINT4 = struct.Struct("!I")
_UINT8 = struct.Struct("!Q")
_FLOAT4 = struct.Struct("!f")
_FLOAT8 = struct.Struct("!d")
_NUMERIC = struct.Struct("!HhHH")
_SPECIAL_NUMERIC = {0xC000: b"NaN", 0xD000: b"Infinity", 0xF000: b"-Infinity"}
_NEGATIVE = 0x4000


def bool_text(value: bytes) -> bytes:
    """Printed ``t`` or ``f``."""
    if len(value) != 1:
        raise ValueError("a bool is one byte")
    return b"t" if value != b"\0" else b"f"


def int2_text(value: bytes) -> bytes:
    """Also raises struct.error, as all of these, unless ``value`` has the type's length."""
    return b"%d" % _INT2.unpack(value)[0]


def int4_text(value: bytes) -> bytes:
    """A signed 32-bit integer."""
    return b"%d" % _INT4.unpack(value)[0]


def int8_text(value: bytes) -> bytes:
    """A signed 64-bit integer."""
    return b"%d" % _INT8.unpack(value)[0]


def uint4_text(value: bytes) -> bytes:
    """oid, xid, cid."""
    return b"%d" % _UINT4.unpack(value)[0]


def uint8_text(value: bytes) -> bytes:
    """xid8."""
    return b"%d" % _UINT8.unpack(value)[0]


def numeric_text(value: bytes) -> bytes:
    """numeric: base-10000 digits, of which ``weight + 1`` stand before the point."""
    count, weight, sign, scale = _NUMERIC.unpack_from(value)
    if sign in _SPECIAL_NUMERIC:
        return _SPECIAL_NUMERIC[sign]
    digits = struct.unpack_from(f"!{count}H", value, 8)
    if len(value) != 8 + 2 * count or sign & ~_NEGATIVE or any(digit > 9999 for digit in digits):
        raise ValueError("not a numeric")
    text = b"".join([b"%04d" % digit for digit in digits])
    point = 4 * (weight + 1)
    if point > 0:
        whole, fraction = text[:point].ljust(point, b"0").lstrip(b"0") or b"0", text[point:]
    else:
        whole, fraction = b"0", b"0" * -point + text
    minus = b"-" if sign else b""
    if not scale:
        return minus + whole
    return b"%b%b.%b" % (minus, whole, fraction[:scale].ljust(scale, b"0"))


def float4_text(value: bytes) -> bytes:
    """A single-precision float."""
    return single(_FLOAT4.unpack(value)[0])


def float8_text(value: bytes) -> bytes:
    """A double-precision float."""
    return double(_FLOAT8.unpack(value)[0])


def double(number: float) -> bytes:
    """``number`` as float8 prints it under extra_float_digits above 0."""
    magnitude = abs(number)
    if 1e-4 <= magnitude < 1e15:
        return repr(number).removesuffix(".0").encode()
    if magnitude < 9007199254740992.0 or magnitude == math.inf or number != number:
        return _special(number) or _layout(repr(number), 15)
    return _layout(_off_boundary(number), 15)


def single(number: float) -> bytes:
    """``number``, which must be a single-precision value, as float4 prints it."""
    return _special(number) or _layout(_shortest_single(number), 6)


def _special(number: float) -> bytes | None:
    if number != number:
        return b"NaN"
    if number in (math.inf, -math.inf):
        return b"Infinity" if number > 0 else b"-Infinity"
    if number == 0:
        return b"-0" if math.copysign(1, number) < 0 else b"0"
    return None


def _layout(text: str, threshold: int) -> bytes:
    """The digits of ``text`` (any spelling of a finite number), with an exponent from 10 ** ``threshold`` on."""
    mantissa, _, exponent = text.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    # Where the point stands after the first significant digit.
    power = int(exponent or 0) + len(whole) - 1 - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if power < -4 or power >= threshold:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{power:+03d}".encode()
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}".encode()
    head = digits[: power + 1].ljust(power + 1, "0")
    tail = f".{digits[power + 1 :]}" if len(digits) > power + 1 else ""
    return f"{sign}{head}{tail}".encode()


def _off_boundary(number: float) -> str:
    """Python's shortest digits, unless they lie exactly half-way to a neighbour.

    Python counts on readers who round half to even; PostgreSQL does not and then prints more digits. A decimal of at
    most 17 digits can be half-way between two doubles only from 2 ** 53 on.
    """
    text = repr(number)
    magnitude = abs(number)
    exact = Fraction(magnitude)
    low = exact - Fraction(math.ulp(math.nextafter(magnitude, 0))) / 2
    high = exact + Fraction(math.ulp(magnitude)) / 2

    def inside(digits: str | Fraction) -> bool:
        return low < Fraction(digits) < high

    if inside(text.lstrip("-")):
        return text
    return ("-" if number < 0 else "") + _shortest(magnitude, inside, 17)


def _shortest_single(number: float) -> str:
    magnitude = abs(number)
    bits = _UINT4.unpack(_FLOAT4.pack(magnitude))[0]
    # Half-way points between single-precision values are exact as doubles. Above the largest stands 2 ** 128.
    low = (_from_bits(bits - 1) + magnitude) / 2
    high = (magnitude + (_from_bits(bits + 1) if bits < 0x7F7FFFFF else 2.0**128)) / 2

    def inside(digits: str | Fraction) -> bool:
        rounded = float(digits)
        # Rounding keeps order, so only a value rounded onto a limit needs exact arithmetic.
        return low < rounded < high or (rounded in (low, high) and low < Fraction(digits) < high)

    return ("-" if number < 0 else "") + _shortest(magnitude, inside, 9)


def _from_bits(bits: int) -> float:
    number: float = _FLOAT4.unpack(_UINT4.pack(bits))[0]
    return number


def _shortest(magnitude: float, inside: Callable[[str | Fraction], bool], most: int) -> str:
    """The shortest decimal that is ``inside`` the interval of ``magnitude``; of several, the nearest to it."""
    lopsided = math.frexp(magnitude)[0] == 0.5
    for count in range(1, most + 1):
        text = f"{magnitude:.{count - 1}e}"
        if inside(text):
            return text
        if lopsided:
            # Values are denser below a power of two: the nearest decimal may lie outside and its neighbour inside.
            exponent = int(text.partition("e")[2]) - count + 1
            step = Fraction(10) ** exponent
            other = Fraction(text) + (step if Fraction(text) < Fraction(magnitude) else -step)
            if inside(other):
                return f"{int(other / step)}e{exponent}"
    raise ValueError("not a float")  # pragma: no cover - so many digits tell every number from its neighbours
