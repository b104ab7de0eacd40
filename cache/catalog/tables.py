"""What the database says of the configured tables. Value types, made by ``query`` from the catalog query's answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.rules import TableRule


@dataclass(frozen=True, slots=True)
class Column:
    """One live column of ``pg_attribute``."""

    name: str
    number: int
    """attnum, as RowDescription carries it."""
    type_oid: int
    type_modifier: int
    """atttypmod; -1 when the type has none."""
    type_kind: str = "b"
    """pg_type.typtype: b base, d domain, e enum, c composite, r range, m multirange."""
    base_oid: int = 0
    """The base type under a domain (any depth); ``type_oid`` itself otherwise."""
    element_oid: int = 0
    """The element type of a true array type; 0 otherwise."""
    generated: bool = False
    deterministic: bool = True
    """False under a nondeterministic collation: equal does not mean same text."""
    base_kind: str = ""
    """pg_type.typtype of ``base_oid``; empty when not known."""
    base_name: str = ""
    """pg_type.typname of ``base_oid``: tells extension types, whose OIDs differ by database; empty when not known."""
    inner: frozenset[int] | None = None
    """The OIDs of everything that is printed within a container type (array, range, multirange, composite, or a domain
    over one), found through all levels down to base types, with 3500 (anyenum) for any enum; None when not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """One row of ``pg_class`` that a configured table depends on."""

    oid: int
    schema: str
    name: str
    kind: str
    """pg_class.relkind: r table, p partitioned table, v view, m materialized view, f foreign table."""
    columns: Mapping[str, Column]
    unique: tuple[frozenset[str], ...] = ()
    """Column sets of unique, valid, non-partial, non-expression indexes."""
    triggers: frozenset[str] = frozenset()
    """Events (INSERT, UPDATE, DELETE, TRUNCATE) with an enabled user trigger, before or after, row or statement."""
    rewritten: bool = False
    """Has rules of the rewrite system (other than a view's own SELECT rule)."""
    inherited: bool = False
    """Has plain (not partition) inheritance children, so no unique index spans its rows."""
    partition: bool = False
    """Is a partition of, or inherits from, another table."""
    rules: tuple[tuple[int, str], ...] = ()
    """OID and version (xmin) of each of its rewrite rules, a view's query among them."""


class LinkType(Enum):
    """How a write on one relation reaches the rows of a configured table."""

    SELF = "self"
    CHILD = "child"
    """The written relation is a partition or inheritance child of the table, at any depth: its rows are the table's."""
    PARENT = "parent"
    """The written relation is an ancestor of the table: its rows may be the table's."""
    VIEW = "view"
    CASCADE = "cascade"
    """A foreign key refers to the written relation and carries its changes on, directly or over more foreign keys."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundRule:
    """A rule and the relation it was found to mean."""

    rule: TableRule
    relation: Relation
    key: tuple[Column, ...]
    value: tuple[Column, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A write on relation ``oid`` may change rows of ``bound``."""

    oid: int
    bound: BoundRule
    type: LinkType
    on_delete: bool = True
    """CASCADE only: a DELETE there reaches the table."""
    on_update: frozenset[str] | None = None
    """CASCADE only: an UPDATE there of one of these columns reaches the table; None when no UPDATE does."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A session's state at one moment, as far as it decides what a statement means: which relation an unqualified name
    is, and where strings end. Hashable: plans are remembered by text and scope."""

    search_path: tuple[str, ...] | None = None
    """Schemas in order, "$user" resolved, pg_catalog left out; None when not known."""
    shadowed: frozenset[str] = frozenset()
    """Names of temporary relations that the session may have created."""
    temporary_unknown: bool = False
    """Code that cannot be seen may have created temporary relations of any name."""
    conforming_strings: bool = True
    """standard_conforming_strings."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which relations a name may mean."""

    oids: tuple[int, ...]
    """Known relations only. A name that means none of them concerns no rule."""
    certain: bool
    """The name means the one relation, or none of the known ones, and nothing else."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """One database as one catalog query saw it. Immutable: a newer answer is a new object."""

    database: str
    bound: tuple[BoundRule, ...] = ()
    """Rules that can be captured."""
    unbound: tuple[tuple[TableRule, str], ...] = ()
    """Rules that cannot, and the reason in words."""
    relations: Mapping[int, Relation] = field(default_factory=dict)
    links: Mapping[int, tuple[Link, ...]] = field(default_factory=dict)
    """By OID of the written relation: the rules whose rows a write on it may change."""
    names: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By unqualified name, for each name of a linked relation or of a rule's table: all relations of that name in the
    database. Those that are not linked are in ``relations`` without columns."""
    volatile: frozenset[str] = frozenset()
    """Names of pg_catalog functions with a volatile overload; it may be one that a user has added."""
    harmless: frozenset[str] = frozenset()
    """Names of functions outside pg_catalog whose overloads are all immutable or stable."""
    float_digits_certain: bool = False
    """Sessions of every role start with extra_float_digits of at least 1, so the text of a float is exact."""
    float_digits_by_role: bool = False
    """ALTER ROLE or ALTER DATABASE has set extra_float_digits for some sessions."""
    started: str = ""
    """When the postmaster was started (seconds since 1970), as the server writes it."""
    digest: str = ""
    """Equal for two catalogs of the same rules exactly if all facts in them are."""

    def resolve(self, schema: str | None, name: str, scope: Scope) -> Resolution:
        """Which known relations ``schema.name`` may mean for a session with this ``scope``."""
        candidates = self.names.get(name, ())
        if not candidates:
            return Resolution((), certain=True)
        if schema is not None:
            if schema.startswith("pg_temp"):
                return Resolution((), certain=True)
            exact = tuple(oid for oid in candidates if self.relations[oid].schema == schema)
            return Resolution(exact, certain=True)
        if name in scope.shadowed:
            return Resolution(candidates, certain=False)
        if scope.search_path is not None:
            # In the path's order. The server skips a schema that the user may not use, so a later one may be meant.
            path = dict.fromkeys(scope.search_path)
            found = tuple(oid for entry in path for oid in candidates if self.relations[oid].schema == entry)
            return Resolution(found, certain=len(found) <= 1 and not scope.temporary_unknown)
        return Resolution(candidates, certain=len(candidates) == 1 and not scope.temporary_unknown)
