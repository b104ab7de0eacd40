"""``rowtap check``: what is wrong with this configuration, PostgreSQL and Redis, one line each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cache.counts import Counts
from cache.delivery.backlog import Backlog
from cache.delivery.writer import Writer
from protocol.startup import SSL_REQUEST_FRAME
from proxy.commands import lookup
from proxy.net import tls
from proxy.net.dial import UnreachableError, dial, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache.catalog.tables import Catalog
    from proxy.config.load import Config
    from proxy.config.sections import PostgresSection, RedisSection


class Verdict(Enum):
    """How good or bad a finding is; the word people see."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    subject: str
    text: str


def run(config: Config, dsn: str | None) -> int:
    """Print what was found; the exit status: 1 when something would keep Rowtap from working."""
    findings = list(examine(config, dsn))
    _print(findings)
    return 1 if any(finding.verdict is Verdict.ERROR for finding in findings) else 0


def examine(config: Config, dsn: str | None) -> Iterator[Finding]:
    """Everything ``check`` has to say, in the order it is looked at."""
    yield Finding(Verdict.OK, "config", f"valid; tables captured: {len(config.rules())}")
    for warning in config.warnings():
        yield Finding(Verdict.WARNING, "config", warning)
    yield from _tls(config)
    reachable = True
    for finding in _postgres(config.postgres):
        reachable = reachable and finding.verdict is not Verdict.ERROR
        yield finding
    if reachable:
        yield from _tables(config, dsn)
    yield from _redis(config.redis)


def _tls(config: Config) -> Iterator[Finding]:
    try:
        if config.proxy.tls is not None:
            tls.client_context(config.proxy.tls)
            tls.own_certificate(config.proxy.tls)
            yield Finding(Verdict.OK, "tls", f"{config.proxy.tls.cert} and its key can be used")
        tls.backend_context(config.postgres)
    except tls.TlsError as error:
        yield Finding(Verdict.ERROR, "tls", str(error))


def _postgres(settings: PostgresSection) -> Iterator[Finding]:
    """Reach the server as a client's first bytes would. No login is needed to see whether PostgreSQL answers."""
    try:
        answer = asyncio.run(_answer_to_ssl_request(settings))
    except UnreachableError as error:
        yield Finding(Verdict.ERROR, "postgres", f"{error}; is [postgres] right?")
        return
    if answer not in {b"S", b"N"}:
        yield Finding(Verdict.ERROR, "postgres", f"{settings} answers, but not as PostgreSQL does")
        return
    yield Finding(Verdict.OK, "postgres", f"{settings} answers{', with TLS' if answer == b'S' else ''}")
    if answer == b"N" and settings.sslmode in {"require", "verify-ca", "verify-full"} and settings.socket_path is None:
        text = f'sslmode = "{settings.sslmode}", and {settings} offers no TLS'
        yield Finding(Verdict.ERROR, "postgres", text)


async def _answer_to_ssl_request(settings: PostgresSection) -> bytes:
    """The server's first byte; none if it closes the connection. Raises UnreachableError."""
    loop = asyncio.get_running_loop()
    _, connection = await dial(settings)
    with connection:
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await loop.sock_sendall(connection, SSL_REQUEST_FRAME)
                return await loop.sock_recv(connection, 1)
        except OSError as error:
            raise unreachable(settings, error) from None


def _tables(config: Config, dsn: str | None) -> Iterator[Finding]:
    rules = config.rules()
    if not rules:
        return
    if not lookup.has_login(dsn):
        text = "not looked at: give --dsn, or PGUSER and the like, to check tables, columns and keys"
        yield Finding(Verdict.WARNING, "tables", text)
        return
    for database in dict.fromkeys(rule.database for rule in rules):
        mine = [rule for rule in rules if rule.database == database]
        try:
            catalog = lookup.fetch_catalog(config.postgres, dsn, database, mine)
        except lookup.LookupFailure as error:
            yield Finding(Verdict.ERROR, database, str(error))
        else:
            yield from judge(catalog)


def judge(catalog: Catalog) -> Iterator[Finding]:
    """What a catalog means for its rules."""
    for rule, reason in catalog.unbound:
        yield Finding(Verdict.ERROR, rule.label, reason)
    for bound in catalog.bound:
        relation = bound.relation
        obstacles = [f"{event} triggers" for event in sorted(relation.triggers)]
        if relation.rewritten:
            obstacles.append("rewrite rules")
        text = "can be captured"
        if obstacles:
            text += f"; writes remove keys instead of storing values, because of {' and '.join(obstacles)}"
        yield Finding(Verdict.OK, bound.rule.label, text)


def _redis(settings: RedisSection) -> Iterator[Finding]:
    """What the writer would find: the same connection, the same questions."""
    writer = Writer(Backlog([], max_backlog=1, counts=Counts()), settings.url, worker="check")
    problems = asyncio.run(writer.check())
    for problem in problems:
        # A full Redis is for its operator to weigh; everything else keeps rows from arriving at all.
        verdict = Verdict.WARNING if problem.startswith("maxmemory-policy") else Verdict.ERROR
        yield Finding(verdict, "redis", f"{settings.safe_url}: {problem}")
    if not problems:
        yield Finding(Verdict.OK, "redis", f"{settings.safe_url} answers")


_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.ERROR: "bold red"}


def _print(findings: Iterable[Finding]) -> None:
    """A table for people; where the output goes into a file or a pipe, plain lines that nothing wraps."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for finding in findings:
            console.out(f"{finding.verdict.value}: {finding.subject}: {finding.text}", highlight=False)
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        verdict = Text(finding.verdict.value, style=_STYLES[finding.verdict])
        table.add_row(verdict, Text(finding.subject, style="bold"), Text(finding.text))
    console.print(table)
