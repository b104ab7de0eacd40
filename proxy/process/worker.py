"""One worker: what a configuration becomes, put together in one place, from sockets to Redis."""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Any

from cache.capture.database import Database
from cache.counts import Counts
from cache.delivery.backlog import Backlog
from cache.delivery.writer import Writer
from cache.sql.statements import Statements
from proxy import logs, metrics
from proxy.config.load import Config, ConfigError
from proxy.net.server import Server
from proxy.net.tls import TlsError
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
HURRY_TIMEOUT = 1.0
"""The same when told to stop at once."""

AT_START = (
    *("proxy.listen", "proxy.workers", "postgres.host", "postgres.port"),
    *("redis.url", "redis.flush_interval", "redis.max_backlog", "cache.statements"),
    "admin.listen",
)
"""Settings that a reload leaves as they were."""

log = logs.get()


class Worker:
    """Everything one process runs. ``index`` tells workers of one proxy apart, ``listeners`` are the caller's."""

    def __init__(self, config: Config, listeners: Sequence[socket.socket], *, index: int = 0, workers: int = 1) -> None:
        self.config = config
        self._begun = config
        """What was read at the start."""
        self.index = index
        rules = config.rules()
        self.counts = Counts.of(rule.label for rule in rules)
        self.backlog = Backlog(rules, max_backlog=config.redis.max_backlog, counts=self.counts)
        self.writer = Writer(
            self.backlog,
            config.redis.url,
            worker=f"{platform.node()}/{config.proxy.listen[0]}/{index}",
            flush_interval=config.redis.flush_interval,
            on_event=_log_event,
            on_internal_error=self._internal_error,
        )
        self._uncaptured: dict[str, TableRule] = {}
        """By label, the rules whose keys were removed because their tables cannot be captured."""
        self._unobserved: dict[str, int] = {}
        """By database, the open sessions that are only relayed because there were no rules when they began."""
        self._databases: dict[str, Database] = {}
        self._arrange(rules)
        self.server = Server(
            config.proxy,
            config.postgres,
            self._observe,
            listeners,
            shared=workers > 1,
            on_internal_error=self._internal_error,
        )
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    # Life.

    async def run(self) -> None:
        """Serve until ``stop``; then let sessions end, and what they changed reach Redis."""
        asyncio.get_running_loop().set_exception_handler(self._callback_failed)
        writing = asyncio.create_task(self.writer.run(), name="writer")
        try:
            for problem in await self.writer.check():
                log.warning(problem, redis=self.config.redis.safe_url)
            if not self._stopping.is_set():
                self.server.start()
            await self._stopping.wait()
            await self._end_sessions()
            patience = HURRY_TIMEOUT if self._hurry.is_set() else DRAIN_TIMEOUT
            if not await self.writer.drain(patience):
                log.warning("changes were left behind; the next start flushes the tables", left=self.backlog.pending)
        finally:
            await self.server.close()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def stop(self) -> None:
        """Drain; called again, stop at once. From here on the listeners are not used: they may be closed."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        self.server.stop_accepting()

    @property
    def draining(self) -> bool:
        """No new session is accepted any more."""
        return self._stopping.is_set()

    async def _end_sessions(self) -> None:
        draining = asyncio.create_task(self.server.drain(self.config.proxy.shutdown_timeout), name="drain")
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not draining.done():
            draining.cancel()
            await self.server.close()
        await asyncio.gather(draining, hurry, return_exceptions=True)

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

    def _internal_error(self, where: str, error: BaseException) -> None:
        """The ``ErrorReport`` of everything this worker runs."""
        self.counts.internal_error(where)
        log.error("internal error", where=where, exc_info=error)

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback, a connection's protocol or a task that is not waited for raised. The event loop has closed
        the connection already."""
        error = context.get("exception")
        if error is None or isinstance(error, OSError):
            loop.default_exception_handler(context)
        else:
            self._internal_error("event loop", error)

    # Rules.

    def reload(self) -> None:
        """Read the configuration again, all but ``AT_START``. Nothing changes if it is wrong."""
        try:
            config = self.config.reload()
            # The rows of another server would not be these tables'.
            here = {"host": self._begun.postgres.host, "port": self._begun.postgres.port}
            self.server.configure(config.proxy, config.postgres.model_copy(update=here))
        except (ConfigError, TlsError) as error:
            log.error("configuration not reloaded", reason=str(error))
            return
        logs.configure(config.log)
        if changed := [name for name in AT_START if _setting(config, name) != _setting(self._begun, name)]:
            log.warning("changed, but read at the start alone: restart to take it over", keys=", ".join(changed))
        self.config = config
        rules = config.rules()
        self.backlog.configure(rules)
        self.writer.reconfigured()
        self._arrange(rules)
        log.info("configuration reloaded", tables=len(rules))

    def _arrange(self, rules: Sequence[TableRule]) -> None:
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
                    Statements(self.config.cache.statements),
                    on_learned=self._learned,
                    # Who is not followed may write unseen: nothing fills while such a session is there.
                    is_followed=lambda name=name: name not in self._unobserved,  # type: ignore[misc]
                )
            else:
                database.configure(its_rules)

    def _learned(self, catalog: Catalog) -> None:
        """A table that is not captured may have keys from when it was, and nobody sees their rows change any more."""
        log.info("catalog learned", database=catalog.database, tables=len(catalog.bound))
        for rule, reason in catalog.unbound:
            if self._uncaptured.get(rule.label) is not rule:
                self._uncaptured[rule.label] = rule
                log.warning("table is not captured", table=rule.label, reason=reason)
                self.backlog.flush([rule.label])
        for bound in catalog.bound:
            self._uncaptured.pop(bound.rule.label, None)

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
            on_internal_error=self._internal_error,
            on_blind=lambda reason: log.warning("session not followed any longer", database=name, reason=reason),
        )


def _setting(config: Config, name: str) -> object:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def _log_event(level: str, event: str, facts: dict[str, object]) -> None:
    getattr(log, level)(event, **facts)
