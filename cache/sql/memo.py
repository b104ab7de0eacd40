"""Remembers plans by exact text and by template, and makes them when they are not remembered.

An exact text costs one dictionary lookup; a text that differs from an earlier one only in literals costs the splitting
of its template; only a new template is parsed. Texts that ``templates`` will not split are parsed as they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cache.catalog.tables import Scope
from cache.sql import binding, canonical, commands, lexer, templates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.catalog.tables import Catalog
    from cache.sql.lexer import Token
    from cache.sql.plans import Literals, Plan

MAX_TEXT = 1_048_576
"""Bytes; a longer text is not read."""
MAX_REMEMBERED = 8_192
"""Bytes; a longer text is not remembered as it is."""
MAX_SCOPES = 256
"""How many different scopes' plans are kept apart before all are forgotten."""
MAX_SCOPE_OBJECTS = 16_384
"""How many scope objects (sessions have their own) are known before all are forgotten."""

# A text without any of these, whatever else it says, writes nothing.
_WRITING = re.compile(
    rb"insert|update|delete|merge|truncate|copy|drop|alter|create|call|do|execute|import|declare|prepare|into",
    re.IGNORECASE,
)
_DEFINING = re.compile(rb"create|alter|drop|import", re.IGNORECASE)


class _Plans:
    """The plans of one scope: the ``size`` or so that were used last, in two generations, so that a hit among the
    younger costs one lookup."""

    __slots__ = ("_half", "_old", "young")

    def __init__(self, size: int) -> None:
        self._half = max(1, size // 2)
        self._old: dict[bytes, tuple[tuple[Plan, ...], Literals]] = {}
        self.young: dict[bytes, tuple[tuple[Plan, ...], Literals]] = {}

    def older(self, key: bytes) -> tuple[tuple[Plan, ...], Literals] | None:
        """What is not among the young, made young again."""
        found = self._old.pop(key, None)
        if found is not None:
            self.put(key, found)
        return found

    def get(self, key: bytes) -> tuple[tuple[Plan, ...], Literals] | None:
        found = self.young.get(key)
        return self.older(key) if found is None else found

    def put(self, key: bytes, found: tuple[tuple[Plan, ...], Literals]) -> None:
        if len(self.young) >= self._half:
            self._old, self.young = self.young, {}
        self.young[key] = found


class PlanMemo:
    """Plans of SQL texts. One for a worker; ``size`` texts (and as many templates) are remembered for each scope."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._catalogs: dict[int, tuple[Catalog, _Scopes]] = {}
        self._catalog: Catalog | None = None
        """The one asked for last, and its plans: with one database there is no other."""
        self._by_object: dict[int, tuple[Scope, _Plans]] = {}

    def plans(self, text: bytes, catalog: Catalog, scope: Scope) -> tuple[tuple[Plan, ...], Literals]:
        """The plans of the statements in ``text``, in order, and its literals. Never raises.

        Empty statements have no plan, as they have no answer. If the statements cannot be told apart there is one plan,
        whose ``whole`` says that it stands for them all.
        """
        if catalog is not self._catalog:
            self._turn_to(catalog)
        entry = self._by_object.get(id(scope))
        plans = self._catalogs[id(catalog)][1].plans(scope) if entry is None else entry[1]
        found = plans.young.get(text)
        if found is not None:
            return found
        return plans.older(text) or self._find(text, catalog, scope, plans)

    def _turn_to(self, catalog: Catalog) -> None:
        known = self._catalogs.get(id(catalog))
        self._by_object = (self._scopes(catalog) if known is None else known[1]).by_object
        self._catalog = catalog

    def _scopes(self, catalog: Catalog) -> _Scopes:
        # Another catalog object of the same database is a newer answer: what the old one meant is gone.
        for identity, (other, _) in list(self._catalogs.items()):
            if other.database == catalog.database:
                del self._catalogs[identity]
        scopes = _Scopes(catalog, self._size)
        self._catalogs[id(catalog)] = (catalog, scopes)
        return scopes

    def _find(self, text: bytes, catalog: Catalog, scope: Scope, plans: _Plans) -> tuple[tuple[Plan, ...], Literals]:
        split = templates.split(text, scope.conforming_strings) if len(text) <= MAX_TEXT else None
        if split is None:
            found = self._read_text(text, catalog, scope)
        else:
            template, literals = split
            known = plans.get(template)
            if known is None:
                known = self._read_template(template, catalog, scope), ()
                plans.put(template, known)
            found = known[0], literals
        if len(text) <= MAX_REMEMBERED:
            plans.put(text, found)
        return found

    def _read_template(self, template: bytes, catalog: Catalog, scope: Scope) -> tuple[Plan, ...]:
        try:
            # Outside UTF-8 only the literals may be of another encoding, and they are not in the template.
            tokens = lexer.tokens(templates.parseable(template).encode().decode(), scope.conforming_strings)
        except (lexer.LexicalError, UnicodeError):
            return (_opaque(template, catalog),)
        return self._bind(canonical.recognise_slots(tokens, templates.slot_of, templates.list_slot_of), catalog, scope)

    def _read_text(self, text: bytes, catalog: Catalog, scope: Scope) -> tuple[tuple[Plan, ...], Literals]:
        if len(text) > MAX_TEXT:
            return (_opaque(text, catalog),), ()
        try:
            tokens, literals = canonical.number_literals(lexer.tokens(text.decode(), scope.conforming_strings))
        except (lexer.LexicalError, UnicodeError):
            return (_opaque(text, catalog),), ()
        return self._bind(tokens, catalog, scope), literals

    def _bind(self, tokens: Sequence[Token], catalog: Catalog, scope: Scope) -> tuple[Plan, ...]:
        reader = commands.StatementReader()
        return tuple(binding.bind(reader.read(statement), catalog, scope) for statement in lexer.statements(tokens))


class _Scopes:
    """The plans of one catalog, by scope."""

    __slots__ = ("_by_scope", "_catalog", "_size", "by_object")

    def __init__(self, catalog: Catalog, size: int) -> None:
        self._catalog = catalog
        self._size = size
        self._by_scope: dict[Scope, _Plans] = {}
        self.by_object: dict[int, tuple[Scope, _Plans]] = {}
        """By ``id`` of a scope that is kept alive here: hashing one takes longer than everything else together."""

    def plans(self, scope: Scope) -> _Plans:
        # Temporary relations that bear no name of interest make no difference.
        narrow = Scope(
            scope.search_path,
            frozenset(name for name in scope.shadowed if name in self._catalog.names),
            scope.conforming_strings,
        )
        found = self._by_scope.get(narrow)
        if found is None:
            if len(self._by_scope) >= MAX_SCOPES:
                self._by_scope.clear()
                self.by_object.clear()
            found = self._by_scope[narrow] = _Plans(self._size)
        if len(self.by_object) >= MAX_SCOPE_OBJECTS:
            self.by_object.clear()
        self.by_object[id(scope)] = scope, found
        return found


def _opaque(text: bytes, catalog: Catalog) -> Plan:
    """The one plan of a text that cannot be read: what it may write is every table whose name is in it."""
    ddl = _DEFINING.search(text) is not None
    if _WRITING.search(text) is None:
        return binding.whole(catalog, (), ddl=ddl)
    lower = text.lower()
    if b"u&" in lower:  # a name may be spelled in escapes
        return binding.whole(catalog, None, ddl=ddl)
    readable = _is_utf8(text)
    return binding.whole(
        catalog,
        [name for name in catalog.names if name.lower().encode() in lower or not (readable or name.isascii())],
        ddl=ddl,
    )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeError:
        return False
    return True
