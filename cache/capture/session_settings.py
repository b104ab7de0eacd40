"""One session's run-time parameters, as far as they decide which table a name means and how a value is printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cache.catalog.tables import Scope
from cache.values.loading import ValueSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Reading = tuple[str | None, str | None]
    """client_encoding and standard_conforming_strings, which decide how the server reads the literals of a text; None
    for one that is not certain."""

_REPORTED = {
    name.lower(): name
    for name in (
        "client_encoding",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "search_path",
        "session_authorization",
        "standard_conforming_strings",
    )
}
"""Parameters whose value is taken from ParameterStatus, by the name a statement sets them by."""
_AMBIGUOUS = frozenset({"", "SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB"})
"""Encodings in which a byte that is a quote or backslash in ASCII may be the second half of a character, or of which
that is not known."""

_IDENTIFIER = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",\s]+))\s*(?:,|$)')


def parse_search_path(value: str, user: str | None) -> tuple[str, ...] | None:
    """The schemas of a search_path as the server reports it, "$user" replaced; None when it cannot be read, or says
    "$user" while ``user`` is not certain."""
    schemas: list[str] = []
    position = 0
    while position < len(value):
        match = _IDENTIFIER.match(value, position)
        if match is None:
            return None
        quoted, plain = match.groups()
        name = quoted.replace('""', '"') if quoted is not None else plain
        position = match.end()
        if name == "$user":
            if user is None:
                return None
            name = user
        if name != "pg_catalog":
            schemas.append(name)
    return tuple(schemas)


class Settings:
    """The parameters of one session: reported ones as they are, the others as far as statements show them.

    ``scope`` and ``values`` are hashable and stay the same object until something changes them.
    """

    __slots__ = (
        "_float_digits",
        "_parameters",
        "_role",
        "_scope",
        "_shadowed",
        "_unsettled",
        "_values",
        "changed",
        "reading",
    )

    def __init__(
        self, parameters: Mapping[str, str], startup: Mapping[str, str], *, float_digits_certain: bool = True
    ) -> None:
        """``parameters`` as ParameterStatus reported them so far, ``startup`` as StartupMessage asked for them;
        ``float_digits_certain`` is the catalog's at that moment, whatever later ones say of later sessions."""
        self._parameters = dict(parameters)
        self._role = parameters.get("session_authorization") or startup.get("user")
        asked = startup.get("extra_float_digits")
        self._float_digits = float_digits_certain and (asked is None or _positive(asked))
        if "extra_float_digits" in startup.get("options", ""):
            self._float_digits = False
        if "role" in startup or "role" in startup.get("options", ""):
            self._role = None
        self._shadowed: frozenset[str] = frozenset()
        self._unsettled: set[str] = set()
        """Reported parameters that a statement has set since the last ReadyForQuery: only before the next one are their
        new values reported."""
        self._scope: Scope | None = None
        self._values: dict[bool, ValueSettings] = {}
        self.reading = self._now_reading()
        self.changed = False
        """Something has changed since this was last set to False, by the one object that keeps what follows from the
        settings."""

    @property
    def hot_standby(self) -> bool:
        return self._parameters.get("in_hot_standby") == "on"

    @property
    def scope(self) -> Scope:
        """What decides which relation an unqualified name means."""
        scope = self._scope
        if scope is None:
            path = self._reported("search_path")
            scope = self._scope = Scope(
                search_path=None if path is None else parse_search_path(path, self._role),
                shadowed=self._shadowed,
                conforming_strings=self._parameters.get("standard_conforming_strings") == "on",
            )
        return scope

    def values(self, *, float_digits_certain: bool) -> ValueSettings:
        """What decides how a value is printed; ``float_digits_certain`` is the catalog's."""
        certain = float_digits_certain and self._float_digits
        found = self._values.get(certain)
        if found is None:
            known = {name: value for name, value in self._parameters.items() if name not in self._unsettled}
            found = self._values[certain] = ValueSettings.from_parameters(known, float_digits_certain=certain)
        return found

    def readable(self, text: bytes) -> bool:
        """It is certain where each literal of ``text`` ends: no byte that looks like a quote or backslash is half of a
        character, and whether a backslash escapes is known."""
        encoding, conforming = self.reading
        if conforming is None and b"\\" in text:
            return False
        return text.isascii() or (encoding is not None and encoding.upper() not in _AMBIGUOUS)

    def reads_alike(self, text: bytes, reading: Reading) -> bool:
        """The server would read the literals of ``text`` now as it did under ``reading``."""
        return reading == self.reading or (text.isascii() and b"\\" not in text)

    def report(self, name: str, value: str) -> None:
        """ParameterStatus."""
        self._parameters[name] = value
        if name == "session_authorization":
            self._role = value
        self._forget()

    def apply(self, settings: Iterable[tuple[str, str | None, bool]]) -> None:
        """A statement that sets parameters ran: see ``Plan.settings``."""
        for name, value, _ in settings:
            if name == "*":
                self._unsettled.update(_REPORTED.values())
            elif name in _REPORTED:
                self._unsettled.add(_REPORTED[name])
            if name == "*" or (name == "extra_float_digits" and not (value is not None and _positive(value))):
                self._float_digits = False
            if name in {"role", "session_authorization", "*"}:
                self._role = None
        self._forget()

    def mark_uncertain(self) -> None:
        """Something ran that may have set anything."""
        self.apply((("*", None, False),))

    def settle(self) -> None:
        """ReadyForQuery came: the server has reported the parameters that were set."""
        if self._unsettled:
            self._unsettled.clear()
            self._forget()

    def shadow(self, names: Iterable[str]) -> None:
        """The session created temporary relations."""
        self._shadowed |= frozenset(names)
        self._forget()

    def discard_temporary(self) -> None:
        """DISCARD ALL or DISCARD TEMP: no temporary relation is left."""
        self._shadowed = frozenset()
        self._forget()

    def _forget(self) -> None:
        self._scope = None
        self._values.clear()
        self.reading = self._now_reading()
        self.changed = True

    def _now_reading(self) -> Reading:
        return self._reported("client_encoding"), self._reported("standard_conforming_strings")

    def _reported(self, name: str) -> str | None:
        return None if name in self._unsettled else self._parameters.get(name)


def _positive(value: str) -> bool:
    try:
        return int(value) >= 1
    except ValueError:
        return False
