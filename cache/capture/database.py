"""What one worker knows of one configured database, shared by all of its sessions."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cache.capture.plan_views import PlanViews
from cache.catalog import query as catalog_query
from cache.catalog.facts import changed_rules
from cache.catalog.tables import Catalog, Scope
from cache.changes import Change, Kind
from cache.sql import binding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cache.rules import TableRule
    from cache.sql.memo import PlanMemo
    from cache.sql.plans import Literals, Plan
    from cache.values.loading import ValueSettings

RETRY_NS = 1_000_000_000
"""Nanoseconds after a failed catalog query before a session asks again."""
CATALOG_INTERVAL = 5.0
"""Seconds; see ``Database.interval``."""
_NEVER = 1 << 62
MAX_UNKNOWN_TABLES = 10_000
MAX_SETTINGS = 64
"""For how many different combinations of settings plan views are kept before all of them are forgotten."""
MAX_PREPARED = 10_000
"""How many prepared transactions are remembered; the others count as unknown."""


class CatalogQuestion:
    """One catalog query, to be sent over a client's session. ``answer`` must be called exactly once."""

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

    The catalog is *certain* only while no DDL is under way: from the moment a statement that may change it is forwarded
    until its transaction has ended and the catalog has been asked for again, writes evict and reads do not fill.
    """

    def __init__(
        self,
        name: str,
        rules: Sequence[TableRule],
        statements: PlanMemo,
        *,
        interval: float | None = CATALOG_INTERVAL,
        on_learned: Callable[[Catalog], None] | None = None,
        on_changed: Callable[[list[TableRule]], None] | None = None,
        is_followed: Callable[[], bool] | None = None,
    ) -> None:
        """``on_learned`` is called with each new catalog, ``on_changed`` then with the rules that the former one was
        wrong about: they are to be flushed. ``is_followed`` says whether every session on the database is observed: the
        first catalog is not asked for before that."""
        self.name = name
        self.statements = statements
        self.prepared: dict[str, list[Change]] = {}
        """Changes of the transactions that PREPARE TRANSACTION left, by gid."""
        self.interval = interval
        """Seconds after which the catalog is asked for again: there may have been DDL this worker has not seen. None:
        never for that reason."""
        self._on_learned = on_learned
        self._on_changed = on_changed
        self._is_followed = is_followed
        self._generation = 0
        self._ddl_open = 0
        self._asking = False
        self._retry_at = 0
        self.due_at = 0
        """The instant (``time.monotonic_ns()``) from which the catalog is to be asked for; 0 when it is known to be
        out of date."""
        self._unknown_tables: set[int] = set()
        """OIDs the catalog has been asked again for."""
        self._plan_views: dict[tuple[Scope, ValueSettings], PlanViews] = {}
        self._former: Catalog | None = None
        """The newest answer, also when the rules have changed since."""
        self._wrong: dict[str, int] = {}
        """When (``time.monotonic_ns()``) the catalog was last found to have been wrong about a rule, by its label."""
        self._last_wrong = -1
        self.configure(rules)

    def configure(self, rules: Sequence[TableRule]) -> None:
        """Take other rules: the catalog is asked for again."""
        self.rules = tuple(rules)
        self.question_text = catalog_query.text(self.rules).encode() if self.rules else b""
        self.catalog = Catalog(self.name)
        self.learned = False
        self.due_at = 0
        self._plan_views.clear()
        self._generation += 1
        self._retry_at = 0

    @property
    def certain(self) -> bool:
        """The catalog is what the database has now, as far as the statements that were seen tell."""
        return self.learned and self.due_at > 0 and not self._ddl_open

    def plans(self, text: bytes, scope: Scope) -> tuple[tuple[Plan, ...], Literals]:
        """The plans of ``text``, by the newest catalog."""
        return self.statements.plans(text, self.catalog, scope)

    def plan_views(self, scope: Scope, settings: ValueSettings) -> PlanViews:
        """The views of the newest catalog's plans, shared by all sessions with this scope and these settings."""
        key = (scope, settings)
        views = self._plan_views.get(key)
        if views is None or views.catalog is not self.catalog:
            if len(self._plan_views) >= MAX_SETTINGS:
                self._plan_views.clear()
            views = self._plan_views[key] = PlanViews(self.catalog, settings)
        return views

    def unreadable(self) -> Plan:
        """The plan of a statement that could not be read: it may write every table, and change the catalog."""
        return binding.plan_of_whole_text(self.catalog, None, ddl=True)

    def question(self) -> CatalogQuestion | None:
        """The catalog query, if it is time to ask it and no other session is asking."""
        if not self.rules or time.monotonic_ns() < self.due_at:
            return None
        if not self.learned and self._is_followed is not None and not self._is_followed():
            return None
        if self._ddl_open or (self._asking and self.learned) or time.monotonic_ns() < self._retry_at:
            return None
        self._asking = True
        return CatalogQuestion(self, self._generation)

    def answered(self, payload: bytes | None, generation: int) -> None:
        """The answer to a catalog query that was made in ``generation``. It is not taken if DDL has begun or ended, or
        the rules have changed, since then."""
        self._asking = False
        if payload is not None and generation != self._generation:
            return
        catalog = None if payload is None else self._read(payload)
        if catalog is None:
            self._retry_at = time.monotonic_ns() + RETRY_NS
            return
        now, asked_after_ddl = time.monotonic_ns(), self.due_at == 0
        self.learned = True
        self.due_at = _NEVER if self.interval is None else now + int(self.interval * 1e9)
        if catalog is self.catalog:
            if not asked_after_ddl:
                return
            # Something has changed that the facts do not tell. What was remembered under the former object goes.
            catalog = replace(catalog)
        former, self._former = self._former, catalog
        self.catalog = catalog
        self.question_text = catalog_query.text(self.rules, catalog.digest).encode()
        self._plan_views.clear()
        if self._on_learned is not None:
            self._on_learned(catalog)
        if former is not None and (wrong := changed_rules(former, catalog)):
            self._was_wrong_about(wrong, now)

    def _read(self, payload: bytes) -> Catalog | None:
        """The catalog that ``payload`` describes: ``self.catalog`` itself if nothing has changed; None if it makes no
        sense."""
        try:
            answer = catalog_query.read(payload)
            if answer.digest != self.catalog.digest:
                return catalog_query.catalog_of(answer, self.name, self.rules)
        except ValueError:
            return None
        catalog = self.catalog
        certain = answer.float_digits is True and not catalog.float_digits_by_role
        if answer.float_digits is not None and certain != catalog.float_digits_certain:
            return replace(catalog, float_digits_certain=certain)
        return catalog

    def _was_wrong_about(self, rules: list[TableRule], now: int) -> None:
        """Statements were planned by another catalog than the one that counted: what they did to ``rules`` is unknown.

        Everything that is committed is covered by the Flush of ``on_changed``; transactions that are open, or prepared,
        flush when they commit (``wrong_since``).
        """
        self._last_wrong = now
        self._wrong.update((rule.label, now) for rule in rules)
        for changes in self.prepared.values():
            changes += self._flushes(rules, (0, now))
        if self._on_changed is not None:
            self._on_changed(rules)

    def wrong_since(self, stamp: tuple[int, int]) -> list[Change]:
        """Flushes of the rules about which the catalog has been found wrong since the date and instant ``stamp``, at
        which a transaction that has written, or may have, began."""
        if stamp[1] > self._last_wrong:
            return []
        return self._flushes([rule for rule in self.rules if self._wrong.get(rule.label, -1) >= stamp[1]], stamp)

    @staticmethod
    def _flushes(rules: Iterable[TableRule], stamp: tuple[int, int]) -> list[Change]:
        return [Change(Kind.FLUSH, rule, b"", None, *stamp) for rule in rules]

    def note_unknown_tables(self, oids: Iterable[int]) -> None:
        """Rows came of tables that the catalog does not have, for a statement with a configured name in it: the table
        may have been created again unseen. The catalog is asked again, once for each OID."""
        for oid in oids:
            if oid not in self._unknown_tables and self.learned:
                if len(self._unknown_tables) >= MAX_UNKNOWN_TABLES:
                    self._unknown_tables.clear()
                self._unknown_tables.add(oid)
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
