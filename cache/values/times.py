"""Dates, times and intervals: binary format printed as PostgreSQL prints it, text format checked and moved to UTC.

Text says by its own shape whether it is ISO, so a session whose DateStyle or IntervalStyle changed unnoticed costs
values and never makes a wrong one.
"""

from __future__ import annotations

import re
import struct
from datetime import date

_DAY = 86_400_000_000
"""Microseconds."""
_EPOCH = date(2000, 1, 1).toordinal()
_ERA = 146_097
"""Days of the 400 years after which the Gregorian calendar repeats."""
_DATE = struct.Struct("!i")
_TIMESTAMP = struct.Struct("!q")
_TIMETZ = struct.Struct("!qi")
_INTERVAL = struct.Struct("!qii")
_INFINITE = {2**31 - 1: b"infinity", -(2**31): b"-infinity", 2**63 - 1: b"infinity", -(2**63): b"-infinity"}
_INFINITE_INTERVALS = {
    (2**63 - 1, 2**31 - 1, 2**31 - 1): b"infinity",
    (-(2**63), -(2**31), -(2**31)): b"-infinity",
}
_WORDS = (b"infinity", b"-infinity")

_ISO_DATE = re.compile(rb"\d{4,7}-\d\d-\d\d(?: BC)?")
_ISO_TIMESTAMP = re.compile(rb"\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?(?: BC)?")
_ISO_TIMESTAMPTZ = re.compile(
    rb"(\d{4,6})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?( BC)?"
)
_POSTGRES_INTERVAL = re.compile(
    rb"(?=.)(?:[+-]?\d+ years?(?: (?!$)|$))?(?:[+-]?\d+ mons?(?: (?!$)|$))?(?:[+-]?\d+ days?(?: (?!$)|$))?"
    rb"(?:[+-]?\d{2,}:\d\d:\d\d(?:\.\d{1,6})?)?"
)


def date_from_text(value: bytes) -> bytes | None:
    """``value`` if it is an ISO date."""
    return value if value in _WORDS or _ISO_DATE.fullmatch(value) else None


def timestamp_from_text(value: bytes) -> bytes | None:
    """``value`` if it is an ISO timestamp without time zone."""
    return value if value in _WORDS or _ISO_TIMESTAMP.fullmatch(value) else None


def timestamptz_from_text(value: bytes) -> bytes | None:
    """The ISO timestamp with its offset to UTC, moved to UTC."""
    match = _ISO_TIMESTAMPTZ.fullmatch(value)
    if match is None:
        return value if value in _WORDS else None
    if value.endswith((b"+00", b"+00 BC")):
        return value
    year, month, day, hour, minute, second, fraction, sign, *offset, era = match.groups(b"")
    hours, minutes, seconds = (int(part or 0) for part in offset)
    east = (3600 * hours + 60 * minutes + seconds) * (-1 if sign == b"-" else 1)
    clock = 3600 * int(hour) + 60 * int(minute) + int(second) - east
    days = _days(1 - int(year) if era else int(year), int(month), int(day))
    return _timestamp(days * _DAY + clock * 1_000_000 + int(fraction.ljust(6, b"0")), b"+00")


def interval_from_text(value: bytes) -> bytes | None:
    """``value`` if it is in IntervalStyle ``postgres``, or the same in every style."""
    return value if value in _WORDS or _POSTGRES_INTERVAL.fullmatch(value) else None


def date_text(value: bytes) -> bytes:
    """Days since 2000-01-01."""
    (days,) = _DATE.unpack(value)
    if days in _INFINITE:
        return _INFINITE[days]
    text, era = _calendar(days)
    return text + era


def timestamp_text(value: bytes) -> bytes:
    """Microseconds since 2000-01-01 00:00:00."""
    return _timestamp(_TIMESTAMP.unpack(value)[0], b"")


def timestamptz_text(value: bytes) -> bytes:
    """Microseconds since 2000-01-01 00:00:00 UTC, printed at UTC."""
    return _timestamp(_TIMESTAMP.unpack(value)[0], b"+00")


def time_text(value: bytes) -> bytes:
    """Microseconds since midnight; 24:00:00 is one."""
    return _time_of_day(_TIMESTAMP.unpack(value)[0])


def timetz_text(value: bytes) -> bytes:
    """A time and its own zone, which prints the same whatever the session's is."""
    microseconds, west = _TIMETZ.unpack(value)
    hours, seconds = divmod(abs(west), 3600)
    minutes, seconds = divmod(seconds, 60)
    zone = b"%b%02d" % (b"-" if west > 0 else b"+", hours)
    if minutes or seconds:
        zone += b":%02d" % minutes
    if seconds:
        zone += b":%02d" % seconds
    return _time_of_day(microseconds) + zone


def interval_text(value: bytes) -> bytes:
    """Microseconds, days and months in IntervalStyle ``postgres``. Raises ValueError for the infinite ones."""
    fields = _INTERVAL.unpack(value)
    if fields in _INFINITE_INTERVALS:
        raise ValueError("before version 17 these were long but finite intervals")
    return _interval(*fields)


def interval_text_17(value: bytes) -> bytes:
    """The same from a server that has infinite intervals."""
    fields = _INTERVAL.unpack(value)
    return _INFINITE_INTERVALS.get(fields) or _interval(*fields)


def _interval(microseconds: int, days: int, months: int) -> bytes:
    years, months = divmod(abs(months), 12) if months >= 0 else (-part for part in divmod(-months, 12))
    pieces: list[bytes] = []
    before = False
    for count, unit in ((years, b"year"), (months, b"mon"), (days, b"day")):
        if count:
            plus = b"+" if before and count > 0 else b""
            pieces.append(b"%b%d %b%b" % (plus, count, unit, b"" if count == 1 else b"s"))
            before = count < 0
    if microseconds or not pieces:
        sign = b"-" if microseconds < 0 else b"+" if before else b""
        pieces.append(sign + _clock(abs(microseconds)))
    return b" ".join(pieces)


def _timestamp(microseconds: int, zone: bytes) -> bytes:
    if microseconds in _INFINITE and abs(microseconds) > 2**32:
        return _INFINITE[microseconds]
    days, rest = divmod(microseconds, _DAY)
    text, era = _calendar(days)
    return b"%b %b%b%b" % (text, _clock(rest), zone, era)


def _calendar(days: int) -> tuple[bytes, bytes]:
    """The date ``days`` after 2000-01-01 and, for years before 1, " BC"."""
    eras, ordinal = divmod(days + _EPOCH - 1, _ERA)
    found = date.fromordinal(ordinal + 1)
    year = found.year + 400 * eras
    text = b"%04d-%02d-%02d" % (year if year > 0 else 1 - year, found.month, found.day)
    return text, b"" if year > 0 else b" BC"


def _days(year: int, month: int, day: int) -> int:
    """Days from 2000-01-01 to a date of the Gregorian calendar without a gap at year 0."""
    eras, years = divmod(year - 1, 400)
    return date(years + 1, month, day).toordinal() + eras * _ERA - _EPOCH


def _time_of_day(microseconds: int) -> bytes:
    if not 0 <= microseconds <= _DAY:
        raise ValueError("not a time of day")
    return _clock(microseconds)


def _clock(microseconds: int) -> bytes:
    seconds, fraction = divmod(microseconds, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = b"%02d:%02d:%02d" % (hours, minutes, seconds)
    return text + (b".%06d" % fraction).rstrip(b"0") if fraction else text
