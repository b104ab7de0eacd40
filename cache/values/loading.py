"""What reading a value needs: the session's settings that decide how values look on the wire, and what a loader is.

Each family of types has its module; ``loaders`` chooses among them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Loader = Callable[[bytes], bytes | None]
"""From a value as it came over the wire to its canonical text; None when that cannot be told for this value."""


def verbatim(value: bytes) -> bytes | None:
    """The loader of values that are canonical as they come. Callers may compare with ``is`` and leave out the call."""
    return value


_MALFORMED = (struct.error, ValueError, IndexError, OverflowError)


def guarded(decode: Loader) -> Loader:
    """``decode`` as a loader: values it finds malformed (too short, too long, out of range) become None."""

    def load(value: bytes) -> bytes | None:
        try:
            return decode(value)
        except _MALFORMED:
            return None

    return load


@dataclass(frozen=True, slots=True)
class ValueSettings:
    """The settings of a session that decide how values look on the wire. An empty text is a setting not known."""

    client_encoding: str = ""
    server_encoding: str = ""
    date_style: str = ""
    interval_style: str = ""
    time_zone: str = ""
    float_digits_certain: bool = False
    """extra_float_digits is certainly above 0. It is not reported by the server; the session's SETs say it."""
    server_version: int = 0
    """As PG_VERSION_NUM: 180000 for 18; 0 when not known."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], *, float_digits_certain: bool = False) -> ValueSettings:
        """From the latest value of each ParameterStatus, by name as the server spells it."""
        version = re.match(r"(\d{1,4})(?:\.(\d{1,3}))?", parameters.get("server_version", ""))
        number = int(version[1]) * 10_000 + int(version[2] or 0) if version else 0
        return cls(
            client_encoding=parameters.get("client_encoding", "").upper(),
            server_encoding=parameters.get("server_encoding", "").upper(),
            date_style=parameters.get("DateStyle", ""),
            interval_style=parameters.get("IntervalStyle", ""),
            time_zone=parameters.get("TimeZone", ""),
            # Before version 12 the digits were neither shortest nor, by default, exact.
            float_digits_certain=float_digits_certain and number >= 120_000,
            server_version=number,
        )

    @property
    def iso_dates(self) -> bool:
        """DateStyle is ISO, with whatever order of day and month (which only matters for input)."""
        return self.date_style.split(",")[0].strip() == "ISO"

    @property
    def utc(self) -> bool:
        """TimeZone is known to be another name of UTC."""
        return self.time_zone in _UTC


CANONICAL = ValueSettings(
    "UTF8", "UTF8", "ISO, MDY", "postgres", "UTC", float_digits_certain=True, server_version=180000
)
"""The settings under which PostgreSQL's own text is what Redis must hold."""

_UTC = frozenset(
    prefix + name
    for prefix in ("", "Etc/")
    for name in ("UTC", "UCT", "GMT", "GMT0", "GMT+0", "GMT-0", "Greenwich", "Universal", "Zulu")
)
