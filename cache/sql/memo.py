"""From SQL text to plans, remembered by exact text and by template.

A text seen before costs one dictionary lookup; one that differs from an earlier text in literals alone costs splitting
it into template and literals; only a new template is parsed. A text that has no template is parsed as it is.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cache.sql import binding, canonical, commands, lexer, templates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.catalog.tables import Catalog, Scope
    from cache.counts import ErrorReport
    from cache.sql.lexer import Token
    from cache.sql.plans import Literals, Plan

MAX_TEXT = 1_048_576
"""Bytes; a longer text is not read."""
MAX_REMEMBERED = 8_192
"""Bytes; a longer text is not remembered as it is."""
MAX_SCOPES = 256
"""Scopes of one catalog whose plans are remembered, before all of them are forgotten."""
MAX_SCOPE_OBJECTS = 16_384
"""Scope objects that are remembered (each session has its own), before all of them are forgotten."""

# A text in which none of these occurs writes nothing.
_WRITING = re.compile(
    rb"insert|update|delete|merge|truncate|copy|drop|alter|create|call|do|execute|import|declare|prepare|into",
    re.IGNORECASE,
)
_DEFINING = re.compile(rb"create|alter|drop|import", re.IGNORECASE)


_Entry = tuple[tuple["Plan", ...], "Literals"]
"""The plans of a text's statements and the text's literals; of a template, the plans alone."""


class _ScopePlans:
    """The plans of one scope: about ``size`` of them, those used last.

    They are kept in two halves. When the recent half is full it becomes the old one, and what was old is forgotten.
    """

    __slots__ = ("_half", "_old", "recent")

    def __init__(self, size: int) -> None:
        self._half = max(1, size // 2)
        self._old: dict[bytes, _Entry] = {}
        self.recent: dict[bytes, _Entry] = {}

    def recall(self, key: bytes) -> _Entry | None:
        """The entry of a key that is not in the recent half; it moves there."""
        found = self._old.pop(key, None)
        if found is not None:
            self.put(key, found)
        return found

    def get(self, key: bytes) -> _Entry | None:
        found = self.recent.get(key)
        return self.recall(key) if found is None else found

    def put(self, key: bytes, found: _Entry) -> None:
        if len(self.recent) >= self._half:
            self._old, self.recent = self.recent, {}
        self.recent[key] = found


class PlanMemo:
    """The plans of SQL texts, one object for each database of a worker.

    Args:
        size: how many texts and templates are remembered for a scope.
        on_internal_error: told of a fault of this package, whose statement is then opaque; without it faults raise.
    """

    def __init__(self, size: int, on_internal_error: ErrorReport | None = None) -> None:
        self._size = size
        self._on_internal_error = on_internal_error
        self._catalogs: dict[int, tuple[Catalog, _CatalogPlans]] = {}
        self._catalog: Catalog | None = None
        """The one asked for last, whose plans by scope are in ``_by_object``: most workers have one database."""
        self._by_object: dict[int, tuple[Scope, _ScopePlans]] = {}

    def plans(self, text: bytes, catalog: Catalog, scope: Scope) -> tuple[tuple[Plan, ...], Literals]:
        """The plans of the statements in ``text``, in order, and its literals. No text makes it raise.

        An empty statement has no plan, as it has no answer. A text that cannot be divided into statements has one
        plan, which is ``whole``: it stands for all of them.
        """
        if catalog is not self._catalog:
            self._change_to(catalog)
        entry = self._by_object.get(id(scope))
        plans = self._catalogs[id(catalog)][1].plans(scope) if entry is None else entry[1]
        found = plans.recent.get(text)
        if found is not None:
            return found
        return plans.recall(text) or self._find(text, catalog, scope, plans)

    def _change_to(self, catalog: Catalog) -> None:
        known = self._catalogs.get(id(catalog))
        self._by_object = (self._forget_older(catalog) if known is None else known[1]).by_object
        self._catalog = catalog

    def _forget_older(self, catalog: Catalog) -> _CatalogPlans:
        """The empty plans of a catalog not met before. Those of older catalogs of its database are forgotten."""
        for identity, (other, _) in list(self._catalogs.items()):
            if other.database == catalog.database:
                del self._catalogs[identity]
        scopes = _CatalogPlans(catalog, self._size)
        self._catalogs[id(catalog)] = (catalog, scopes)
        return scopes

    def _find(self, text: bytes, catalog: Catalog, scope: Scope, plans: _ScopePlans) -> _Entry:
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
            tokens = templates.tokens_of(template, scope.conforming_strings)
        except (lexer.LexicalError, UnicodeError):
            return (_opaque(template, catalog),)
        return self._bind(tokens, catalog, scope)

    def _read_text(self, text: bytes, catalog: Catalog, scope: Scope) -> _Entry:
        if len(text) > MAX_TEXT:
            return (_opaque(text, catalog),), ()
        try:
            tokens, literals = canonical.number_literals(lexer.tokenize(text.decode(), scope.conforming_strings))
        except (lexer.LexicalError, UnicodeError):
            return (_opaque(text, catalog),), ()
        return self._bind(tokens, catalog, scope), literals

    def _bind(self, tokens: Sequence[Token], catalog: Catalog, scope: Scope) -> tuple[Plan, ...]:
        reader = commands.StatementReader(self._on_internal_error)
        return tuple(
            binding.bind(reader.read(statement), catalog, scope) for statement in lexer.split_statements(tokens)
        )


class _CatalogPlans:
    """The plans of one catalog, by scope."""

    __slots__ = ("_by_scope", "_catalog", "_size", "by_object")

    def __init__(self, catalog: Catalog, size: int) -> None:
        self._catalog = catalog
        self._size = size
        self._by_scope: dict[Scope, _ScopePlans] = {}
        self.by_object: dict[int, tuple[Scope, _ScopePlans]] = {}
        """By ``id`` of a scope that is kept alive here: hashing a scope takes longer than the rest of a lookup."""

    def plans(self, scope: Scope) -> _ScopePlans:
        # A temporary relation whose name the catalog does not have makes no difference.
        shadowed = frozenset(name for name in scope.shadowed if name in self._catalog.names)
        narrow = replace(scope, shadowed=shadowed)
        found = self._by_scope.get(narrow)
        if found is None:
            if len(self._by_scope) >= MAX_SCOPES:
                self._by_scope.clear()
                self.by_object.clear()
            found = self._by_scope[narrow] = _ScopePlans(self._size)
        if len(self.by_object) >= MAX_SCOPE_OBJECTS:
            self.by_object.clear()
        self.by_object[id(scope)] = scope, found
        return found


def _opaque(text: bytes, catalog: Catalog) -> Plan:
    """The one plan of a text that cannot be read: it may write every table whose name occurs in it."""
    ddl = _DEFINING.search(text) is not None
    if _WRITING.search(text) is None:
        return binding.plan_of_whole_text(catalog, (), ddl=ddl)
    lower = text.lower()
    temporary = b"temp" in lower
    if b"u&" in lower or b"prepared" in lower:  # a name may be spelled in escapes; COMMIT PREPARED names no table
        return binding.plan_of_whole_text(catalog, None, ddl=ddl, temporary=temporary)
    readable = _is_utf8(text)
    return binding.plan_of_whole_text(
        catalog,
        [name for name in catalog.names if name.lower().encode() in lower or not (readable or name.isascii())],
        ddl=ddl,
        temporary=temporary,
    )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeError:
        return False
    return True
