"""One worker: everything a configuration describes, from the sockets to Redis, put together in one process."""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING

from cache.capture.database import Database
from cache.counts import Counts
from cache.delivery.backlog import Backlog
from cache.delivery.writer import Writer
from cache.sql.memo import PlanMemo
from proxy import logs, metrics
from proxy.config.load import Config, ConfigError
from proxy.net.server import Server
from proxy.net.tls import TlsError
from proxy.process.internal_errors import InternalErrors
from proxy.process.unobserved_session import UnobservedSession
from proxy.session.session import Session

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from cache.catalog.tables import Catalog
    from cache.rules import TableRule
    from proxy.net.relay.observer import Observer

DRAIN_TIMEOUT = 10.0
"""Seconds the backlog has to reach Redis after the last session ended."""
STOP_AT_ONCE_DRAIN_TIMEOUT = 1.0
"""The same when told to stop at once."""

NOT_RELOADED = (
    *("proxy.listen", "proxy.workers", "postgres.host", "postgres.port"),
    *("redis.url", "redis.flush_interval", "redis.max_backlog", "cache.statements"),
    "admin.listen",
)
"""Settings that are read at the start and that a reload leaves as they are."""

log = logs.get()


class Worker:
    """Everything one process runs. ``index`` tells the workers of one proxy apart; the caller opens and closes
    ``listeners``."""

    def __init__(self, config: Config, listeners: Sequence[socket.socket], *, index: int = 0, workers: int = 1) -> None:
        self.config = config
        self._config_at_start = config
        self.index = index
        rules = config.rules()
        self.counts = Counts.of(rule.label for rule in rules)
        self.internal_error = InternalErrors(self.counts)
        self.backlog = Backlog(rules, max_backlog=config.redis.max_backlog, counts=self.counts)
        self.writer = Writer(
            self.backlog,
            config.redis.url,
            worker=f"{platform.node()}/{config.proxy.listen[0]}/{index}",
            flush_interval=config.redis.flush_interval,
            on_event=_log_event,
            on_internal_error=self.internal_error,
        )
        self._uncaptured: dict[str, TableRule] = {}
        """By label, the rules whose keys were removed because their tables cannot be captured."""
        self._unobserved: dict[str, int] = {}
        """By database, the open sessions that are only relayed because there were no rules when they began."""
        self._databases: dict[str, Database] = {}
        self._configure_databases(rules)
        self.server = Server(
            config.proxy,
            config.postgres,
            self._observe,
            listeners,
            shared=workers > 1,
            on_internal_error=self.internal_error,
        )
        self._stopping = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._writer_failed = False

    # Life.

    async def run(self) -> int:
        """Serve until ``stop``; then let sessions end, and send Redis what they changed.

        Returns the exit status. It is 1 if the writer failed: then the worker stops by itself and ends its sessions
        without waiting for ``shutdown_timeout``. It does not start another writer, because what the failed one was
        doing cannot be known: its registration stays in Redis, so that the next start, or another worker, flushes the
        tables. Sessions of a worker without a writer would change rows whose old values stay in Redis.
        """
        writing = asyncio.create_task(self.writer.run(), name="writer")
        writing.add_done_callback(self._writer_ended)
        try:
            for problem in await self.writer.check():
                log.warning("Redis is not as Rowtap needs it", problem=problem, redis=self.config.redis.safe_url)
            if not self._stopping.is_set():
                self.server.start()
            await self._stopping.wait()
            await self._end_sessions()
            seconds = STOP_AT_ONCE_DRAIN_TIMEOUT if self._stop_at_once.is_set() else DRAIN_TIMEOUT
            if not await self.writer.drain(seconds):
                log.warning(
                    "worker ends before all changes are in Redis: the next start flushes the tables",
                    pending=self.backlog.pending,
                )
        finally:
            await self.server.close()
            writing.remove_done_callback(self._writer_ended)
            writing.cancel()
            await asyncio.wait((writing,))
        return 1 if self._writer_failed else 0

    def _writer_ended(self, writing: asyncio.Task[None]) -> None:
        """Stop if the writer failed. It ends by itself only after ``drain``, and is cancelled only by ``run``."""
        error = asyncio.CancelledError() if writing.cancelled() else writing.exception()
        if error is not None:
            self._writer_failed = True
            self.internal_error("writer", error)
            log.error("worker stops because its writer failed", pending=self.backlog.pending)
            self.stop()

    def stop(self) -> None:
        """Drain; called again, stop at once. From here on the listeners are not used: they may be closed."""
        if self._stopping.is_set():
            self._stop_at_once.set()
        self._stopping.set()
        self.server.stop_accepting()

    @property
    def draining(self) -> bool:
        """No new session is accepted any more."""
        return self._stopping.is_set()

    async def _end_sessions(self) -> None:
        """Wait for sessions to end, until ``shutdown_timeout`` is over or ``stop`` is called again."""
        timeout = 0.0 if self._writer_failed else self.config.proxy.shutdown_timeout
        draining = asyncio.create_task(self.server.drain(timeout), name="drain")
        stop_at_once = asyncio.create_task(self._stop_at_once.wait(), name="stop at once")
        try:
            await asyncio.wait((draining, stop_at_once), return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                draining.cancel()
                await self.server.close()
        finally:
            draining.cancel()
            stop_at_once.cancel()
            await asyncio.wait((draining, stop_at_once))
        if not draining.cancelled() and (error := draining.exception()) is not None:
            self.internal_error("worker", error)
            await self.server.close()

    def snapshot(self) -> metrics.Snapshot:
        """What was counted so far."""
        return metrics.snapshot(
            self.counts,
            self.server.carried(),
            worker=self.index,
            pending=self.backlog.pending,
            postgres_up=self.server.postgres_up,
            redis_up=self.writer.connected,
        )

    # Rules.

    def reload(self) -> None:
        """Read the configuration again, all but ``NOT_RELOADED``. A configuration that is refused changes nothing."""
        try:
            config = self.config.reload()
            # Another server's rows are not those of the configured tables.
            address = {"host": self._config_at_start.postgres.host, "port": self._config_at_start.postgres.port}
            self.server.configure(config.proxy, config.postgres.model_copy(update=address))
        except (ConfigError, TlsError) as error:
            log.error("worker refuses the new configuration", reason=str(error))
            return
        logs.configure(config.log)
        changed = [name for name in NOT_RELOADED if _setting(config, name) != _setting(self._config_at_start, name)]
        if changed:
            log.warning("worker keeps settings that are read at the start only: restart it", keys=", ".join(changed))
        self.config = config
        rules = config.rules()
        self.backlog.configure(rules)
        self.writer.reconfigured()
        self._configure_databases(rules)
        log.info("worker takes over the new configuration", tables=len(rules))

    def _configure_databases(self, rules: Sequence[TableRule]) -> None:
        """One ``Database`` for each database that has rules, or had."""
        by_database: dict[str, list[TableRule]] = {name: [] for name in self._databases}
        for rule in rules:
            by_database.setdefault(rule.database, []).append(rule)
        for name, its_rules in by_database.items():
            database = self._databases.get(name)
            if database is None:
                self._databases[name] = Database(
                    name,
                    its_rules,
                    PlanMemo(self.config.cache.statements, self.internal_error),
                    interval=self.config.postgres.catalog_interval,
                    on_learned=self._catalog_learned,
                    on_changed=self._catalog_was_wrong,
                    # A session that is not followed may write unseen: nothing fills while there is one.
                    is_followed=lambda name=name: name not in self._unobserved,  # type: ignore[misc]  # no type for the default
                )
            else:
                database.interval = self.config.postgres.catalog_interval
                database.configure(its_rules)

    def _catalog_learned(self, catalog: Catalog) -> None:
        """Flush the rules of tables that cannot be captured: their keys may be from when they could, and no later
        write to their rows is seen."""
        log.info("worker learns the catalog", database=catalog.database, tables=len(catalog.bound))
        for rule, reason in catalog.unbound:
            if self._uncaptured.get(rule.label) is not rule:
                self._uncaptured[rule.label] = rule
                log.warning("table is not captured", table=rule.label, reason=reason)
                self.backlog.flush([rule.label])
        for bound in catalog.bound:
            self._uncaptured.pop(bound.rule.label, None)

    def _catalog_was_wrong(self, rules: Sequence[TableRule]) -> None:
        """Flush the rules that statements were planned for by facts that did not hold any more."""
        labels = [rule.label for rule in rules]
        log.info("the definition of tables has changed: their keys are removed", tables=", ".join(labels))
        self.backlog.flush(labels)

    def _observe(self, name: str, user: str, parameters: dict[str, str], startup: dict[str, str]) -> Observer | None:
        database = self._databases.get(name)
        if database is None:
            return UnobservedSession(self._unobserved, name)
        return Session(
            database,
            self.backlog,
            self.counts,
            parameters,
            startup,
            before_commit=self.config.cache.before_commit,
            on_internal_error=self.internal_error,
            on_blind=lambda reason: log.warning("session goes blind", database=name, reason=reason),
        )


def _setting(config: Config, name: str) -> object:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def _log_event(level: str, event: str, facts: dict[str, object]) -> None:
    getattr(log, level)(event, **facts)
