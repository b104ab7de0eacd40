"""One session's run-time parameters, as far as they decide which table a name means and how a value is printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cache.catalog.tables import Scope
from cache.sql.plans import ANY_SETTING, RESET_ALL
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

_NAMING = frozenset({"search_path", "role", "session_authorization"})
"""Parameters that decide which relation a name means."""

_WORD = re.compile(r"(?:[^\s\\]|\\.)+", re.DOTALL)
"""A word of ``options``: a backslash makes white space a part of it."""
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


def login_settings(startup: Mapping[str, str]) -> dict[str, str] | None:
    """The run-time parameters that a StartupMessage sets, by lower-case name; None when its ``options`` cannot be read.

    PostgreSQL takes ``options`` first and then the message's own parameters; what comes last counts. In ``options`` a
    name may be spelled with ``-`` for ``_`` (manual, "Parameter Interaction via the Shell"; ``-c name=value`` and
    ``--name=value``). A name's case does not matter.
    """
    found: dict[str, str] = {}
    words = [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in _WORD.findall(startup.get("options", ""))]
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "-c" and position < len(words):
            word = words[position]
            position += 1
        elif word.startswith(("-c", "--")):
            word = word[2:]
        else:
            return None
        name, equals, value = word.partition("=")
        if not equals:
            return None
        found[_parameter(name)] = value
    for name, value in startup.items():
        found[_parameter(name)] = value
    return found


def _parameter(name: str) -> str:
    return name.replace("-", "_").lower()


class Settings:
    """The parameters of one session: reported ones as they are, the others as far as statements show them.

    ``scope`` and ``values`` are hashable and stay the same object until something changes them.
    """

    __slots__ = (
        "_float_digits",
        "_may_revert",
        "_parameters",
        "_path_at_default",
        "_role",
        "_scope",
        "_set_in_transaction",
        "_shadowed",
        "_temporary_unknown",
        "_unsettled",
        "_values",
        "changed",
        "meaning",
        "reading",
        "unseen_code",
    )

    def __init__(
        self, parameters: Mapping[str, str], startup: Mapping[str, str], *, float_digits_certain: bool = True
    ) -> None:
        """``parameters`` as ParameterStatus reported them so far, ``startup`` as StartupMessage asked for them;
        ``float_digits_certain`` is the catalog's at that moment, whatever later ones say of later sessions."""
        self._parameters = dict(parameters)
        self._role = parameters.get("session_authorization") or startup.get("user")
        asked = login_settings(startup)
        digits = None if asked is None else asked.get("extra_float_digits", "1")
        self._float_digits = float_digits_certain and digits is not None and _positive(digits)
        if asked is None or asked.keys() & {"role", "session_authorization"}:
            self._role = None
        self.meaning = 0
        """Grows with everything that may change which relation a name means in this session, or what a prepared
        statement or cursor of some name is: what was learned under a smaller value may not be so any more."""
        self.unseen_code = 0
        """How often code ran that cannot be seen: a prepared statement or cursor may be another one of that name."""
        self._may_revert = False
        """The transaction has changed the meaning: its end, or a ROLLBACK TO, may change it back."""
        self._set_in_transaction: set[str] = set()
        """Reported parameters that a statement of the transaction has set."""
        self._path_at_default = True
        """RESET ALL leaves search_path as it is: nothing has set it since the login or DISCARD ALL."""
        self._temporary_unknown = False
        """Code ran that cannot be seen: there may be temporary relations of any name."""
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
                temporary_unknown=self._temporary_unknown,
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
        if name in _NAMING and self._parameters.get(name) != value:
            self._new_meaning()
        self._parameters[name] = value
        if name == "session_authorization":
            self._role = value
        self._forget()

    def apply(self, settings: Iterable[tuple[str, str | None, bool]]) -> None:
        """A statement that sets parameters ran: see ``Plan.settings``."""
        for name, value, _ in settings:
            everything = name in {ANY_SETTING, RESET_ALL}
            if everything:
                self._set_in_transaction.update(_REPORTED.values())
            elif name in _REPORTED:
                self._set_in_transaction.add(_REPORTED[name])
            if everything or (name == "extra_float_digits" and not (value is not None and _positive(value))):
                self._float_digits = False
            if name in {"role", "session_authorization"} or everything:
                self._role = None
            if name == RESET_ALL:
                # It leaves the role alone (manual, RESET). Pools of connections send it again and again.
                if not self._path_at_default:
                    self._new_meaning()
            elif name == ANY_SETTING or name in _NAMING:
                self._path_at_default = False
                self._new_meaning()
        self._unsettled |= self._set_in_transaction
        self._forget()

    def run_unseen_code(self) -> None:
        """Code ran that cannot be seen: it may have set anything, and made temporary relations."""
        self.unseen_code += 1
        self._temporary_unknown = True
        self.apply(((ANY_SETTING, None, False),))

    def change_names(self) -> None:
        """A definition, or DISCARD TEMP, ran: names may mean other relations, known ones."""
        self._new_meaning()

    def settle(self) -> None:
        """ReadyForQuery came: the server has reported the parameters that were set."""
        if self._unsettled:
            self._unsettled.clear()
            self._forget()

    def transaction_ended(self) -> None:
        """A transaction is over, committed or not: SET LOCAL ends, and what was rolled back is as it was."""
        self.undone()
        self._may_revert = False
        self._set_in_transaction.clear()

    def undone(self) -> None:
        """ROLLBACK TO undid a part of the transaction. What parameters are now is reported before ReadyForQuery."""
        if self._may_revert:
            self.meaning += 1
        if self._set_in_transaction:
            self._unsettled |= self._set_in_transaction
            self._forget()

    def shadow(self, names: Iterable[str]) -> None:
        """The session created temporary relations."""
        self._shadowed |= frozenset(names)
        self._new_meaning()
        self._forget()

    def discard_all(self) -> None:
        """DISCARD ALL: no temporary relation is left, and parameters are as after the login."""
        self._shadowed = frozenset()
        self._temporary_unknown = False
        self._path_at_default = True
        self._new_meaning()
        self._forget()

    def _new_meaning(self) -> None:
        self.meaning += 1
        self._may_revert = True

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
