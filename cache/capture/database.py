"""What one worker knows of one configured database, shared by all of its sessions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache.capture.known import Known
from cache.catalog import query as catalog_query
from cache.catalog.tables import Catalog, Scope
from cache.sql import binding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.changes import Change
    from cache.rules import TableRule
    from cache.sql.memo import PlanMemo
    from cache.sql.plans import Literals, Plan
    from cache.values.loading import ValueSettings

RETRY_NS = 1_000_000_000
"""How long after a failed catalog question the next session asks, in nanoseconds."""
MAX_AGE_NS = 300_000_000_000
"""A catalog this old is asked again: DDL may have passed by on another road."""
MAX_STRANGERS = 10_000
MAX_KNOWN = 64
"""How many different combinations of settings are told apart before all that is known is forgotten."""
MAX_PREPARED = 10_000
"""How many prepared transactions are remembered; the rest count as unknown."""


class CatalogQuestion:
    """One catalog query, to be asked over a client's session. ``answer`` must be called exactly once."""

    __slots__ = ("_database", "_generation", "query")

    def __init__(self, database: Database, generation: int) -> None:
        self.query = database.question_text
        """One SELECT, to be run with only pg_catalog in the search_path."""
        self._database = database
        self._generation = generation

    def answer(self, payload: bytes | None) -> None:
        """The one column of the one row that came back; None when none did."""
        self._database.answered(payload, self._generation)


class Database:
    """The rules of one database, its catalog, its plans, and its prepared transactions.

    The catalog is *certain* only while no DDL is on its way: from the moment a statement that may change it is
    forwarded until the transaction has ended and the question has been asked again, writes evict and reads do not fill.
    """

    def __init__(
        self,
        name: str,
        rules: Sequence[TableRule],
        statements: PlanMemo,
        *,
        on_learned: Callable[[Catalog], None] | None = None,
        is_followed: Callable[[], bool] | None = None,
    ) -> None:
        """``is_followed`` says whether every session on the database is observed; until then nothing is learned."""
        self.name = name
        self.statements = statements
        self.prepared: dict[str, list[Change]] = {}
        """Changes of transactions prepared for two-phase commit, by gid."""
        self._on_learned = on_learned
        self._is_followed = is_followed
        self._generation = 0
        self._ddl_open = 0
        self._asking = False
        self._retry_at = 0
        self.due_at = 0
        """The instant (``time.monotonic_ns()``) from which the catalog is to be asked for; 0 when it is known to be
        out of date."""
        self._strangers: set[int] = set()
        self._known: dict[tuple[Scope, ValueSettings], Known] = {}
        self.configure(rules)

    def configure(self, rules: Sequence[TableRule]) -> None:
        """Take other rules: the catalog is asked again."""
        self.rules = tuple(rules)
        self.question_text = catalog_query.text(self.rules).encode() if self.rules else b""
        self.catalog = Catalog(self.name)
        self.learned = False
        self.due_at = 0
        self._known.clear()
        self._generation += 1
        self._retry_at = 0

    @property
    def certain(self) -> bool:
        """The catalog is what the database has now, as far as statements show."""
        return self.learned and self.due_at > 0 and not self._ddl_open

    def plans(self, text: bytes, scope: Scope) -> tuple[tuple[Plan, ...], Literals]:
        """The plans of ``text``, by the newest catalog."""
        return self.statements.plans(text, self.catalog, scope)

    def known(self, scope: Scope, settings: ValueSettings) -> Known:
        """What sessions with this scope and these settings have found out, by the newest catalog."""
        key = (scope, settings)
        known = self._known.get(key)
        if known is None or known.catalog is not self.catalog:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[key] = Known(self.catalog, settings, self.strange)
        return known

    def unreadable(self) -> Plan:
        """The plan of a statement nobody could read: it may write every table, and change what the catalog says."""
        return binding.plan_of_whole_text(self.catalog, None, ddl=True)

    def question(self) -> CatalogQuestion | None:
        """The catalog query, if it is time to ask it and nobody else is asking."""
        if not self.rules or time.monotonic_ns() < self.due_at:
            return None
        if not self.learned and self._is_followed is not None and not self._is_followed():
            return None
        if self._ddl_open or (self._asking and self.learned) or time.monotonic_ns() < self._retry_at:
            return None
        self._asking = True
        return CatalogQuestion(self, self._generation)

    def answered(self, payload: bytes | None, generation: int) -> None:
        """An answer to a question asked in ``generation``; one asked before the newest DDL ended says nothing."""
        self._asking = False
        if payload is not None:
            try:
                catalog = catalog_query.parse(payload, self.name, self.rules)
            except ValueError:
                payload = None
        if payload is None:
            self._retry_at = time.monotonic_ns() + RETRY_NS
            return
        if generation != self._generation:
            return
        self.catalog = catalog
        self._known.clear()
        self.learned = True
        self.due_at = time.monotonic_ns() + MAX_AGE_NS
        if self._on_learned is not None:
            self._on_learned(catalog)

    def strange(self, oid: int) -> None:
        """Rows of a relation came by that the catalog does not know, where a configured name stands in the statement:
        the table may have been made anew on another road. Asked for once for each oid."""
        if oid not in self._strangers and self.learned:
            if len(self._strangers) >= MAX_STRANGERS:
                self._strangers.clear()
            self._strangers.add(oid)
            self.due_at = 0
            self._generation += 1

    def ddl_began(self) -> None:
        """A statement that may change the catalog was forwarded. Pair with ``ddl_ended``."""
        self._ddl_open += 1
        self.due_at = 0
        self._generation += 1

    def ddl_ended(self) -> None:
        """Its transaction is over, or its session is."""
        self._ddl_open -= 1
        self._generation += 1

    def prepare(self, gid: str, changes: list[Change]) -> bool:
        """PREPARE TRANSACTION succeeded; False when there is no room to remember it."""
        if len(self.prepared) >= MAX_PREPARED:
            return False
        self.prepared[gid] = changes
        return True
