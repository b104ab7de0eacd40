"""What the workers counted, as Prometheus text and as the numbers of ``/status``.

A *snapshot* is one worker's counts as plain data that fits into JSON, so that the process that answers for several
workers can collect their snapshots and add them up. The hot path adds to plain integers (``cache.counts`` and
``Traffic``); everything here runs when the endpoint is asked.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from cache.counts import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from cache.counts import Counts

K = TypeVar("K")

NO_INTERNAL_ERRORS: Mapping[str, int] = {}
PARTS = ("admin", "event_loop", "relay", "server", "session", "sql", "supervisor", "worker", "writer")
"""Parts that count internal errors. They are exported at 0 from the start, because Prometheus's increase() does not see
the first increment of a counter that appears with it."""

LATENCY_BOUNDS: tuple[float, ...] = (
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
)  # fmt: skip
"""Upper bounds in seconds, inclusive. Rowtap adds microseconds to an answer; above a millisecond something is wrong."""


@dataclass(slots=True)
class Traffic:
    """What one worker's sockets carried. All numbers only grow, but ``sessions``."""

    sessions: int = 0
    """Sessions open now."""
    accepted: int = 0
    """Client connections accepted."""
    cancels: int = 0
    """CancelRequests forwarded."""
    client_bytes: int = 0
    """Bytes received from clients."""
    backend_bytes: int = 0
    """Bytes received from PostgreSQL."""
    refused: dict[str, int] = field(default_factory=dict)
    """Connections Rowtap itself refused, by SQLSTATE ("garbage" where the client's bytes allowed no answer)."""
    latency: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    """Seconds it took to pass on a chunk of PostgreSQL's answer; a sample of all chunks."""

    def refuse(self, reason: str) -> None:
        """Count one refused connection."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


class Buckets(TypedDict):
    """A ``Histogram`` as data; ``buckets`` are not cumulative."""

    bounds: list[float]
    buckets: list[int]
    total: float


class Snapshot(TypedDict):
    """One worker's counts at one moment."""

    worker: int
    pending: int
    """Changes observed and not yet in Redis."""
    postgres_up: bool
    redis_up: bool
    rules: dict[str, dict[str, int]]
    """By rule label, the fields of ``RuleCounts``."""
    statements: list[tuple[str, str, int]]
    """Rule label, reason code, number."""
    unfilled: list[tuple[str, str, int]]
    internal_errors: dict[str, int]
    """Exceptions that no rule expects, by the part that caught them."""
    counts: dict[str, int]
    """The plain integers of ``Counts``."""
    sockets: dict[str, int]
    """The plain integers of ``Traffic``."""
    refused: dict[str, int]
    lag: Buckets
    latency: Buckets
    process: dict[str, float]


_COUNTS = {
    "sessions_blinded": ("rowtap_sessions_blinded", "Sessions whose traffic could no longer be followed"),
    "unconfirmed": (
        "rowtap_unconfirmed_writes",
        "Writes forwarded before Redis confirmed that their keys were removed",
    ),
    "redis_errors": ("rowtap_redis_errors", "Failed exchanges with Redis"),
    "redis_reconnects": ("rowtap_redis_reconnects", "Connections made to Redis after the first"),
    "epochs": ("rowtap_epochs", "Epochs begun because another Redis answered, or one with older data"),
    "collapses": ("rowtap_backlog_collapses", "Times a full backlog replaced a table's pending writes by one flush"),
    "batches": ("rowtap_batches", "Batches acknowledged by Redis"),
}
_CHANGES = {"fills": "fill", "stores": "store", "evicts": "evict", "flushes": "flush"}


def snapshot(
    counts: Counts, traffic: Traffic, *, worker: int = 0, pending: int, postgres_up: bool, redis_up: bool
) -> Snapshot:
    """One worker's counts as they are now."""
    return Snapshot(
        worker=worker,
        pending=pending,
        postgres_up=postgres_up,
        redis_up=redis_up,
        rules={label: asdict(rule) for label, rule in counts.rules.items()},
        statements=[(label, reason, number) for (label, reason), number in counts.statements.items()],
        unfilled=[(label, reason, number) for (label, reason), number in counts.unfilled.items()],
        internal_errors=dict(counts.internal_errors),
        counts={name: getattr(counts, name) for name in _COUNTS},
        sockets={
            name: getattr(traffic, name)
            for name in ("sessions", "accepted", "cancels", "client_bytes", "backend_bytes")
        },
        refused=dict(traffic.refused),
        lag=_buckets(counts.lag),
        latency=_buckets(traffic.latency),
        process=_process(),
    )


def _buckets(histogram: Histogram) -> Buckets:
    return Buckets(bounds=list(histogram.bounds), buckets=list(histogram.buckets), total=histogram.total)


def _process() -> dict[str, float]:
    """What this process uses, under the names of Prometheus's own client libraries. Memory and descriptors are absent
    where there is no /proc."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    numbers = {"process_cpu_seconds": usage.ru_utime + usage.ru_stime}
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        numbers["process_resident_memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
        numbers["process_open_fds"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only, no Path for each
    return numbers


def status(
    snapshots: Sequence[Snapshot],
    *,
    version: str,
    started: float,
    other_internal_errors: Mapping[str, int] = NO_INTERNAL_ERRORS,
) -> dict[str, Any]:
    """The numbers of ``/status`` over all workers.

    Args:
        started: the ``time.monotonic()`` of the start.
        other_internal_errors: what the process that answers counted, when it is none of the workers.
    """
    tables: dict[str, dict[str, int]] = {}
    for snapshot in snapshots:
        for label, rule in snapshot["rules"].items():
            total = tables.setdefault(label, dict.fromkeys(rule, 0))
            for name, number in rule.items():
                total[name] += number
    return {
        "version": version,
        "uptime": round(time.monotonic() - started, 3),
        "workers": len(snapshots),
        "sessions": sum(snapshot["sockets"]["sessions"] for snapshot in snapshots),
        "pending_changes": sum(snapshot["pending"] for snapshot in snapshots),
        "postgres": _state([snapshot["postgres_up"] for snapshot in snapshots]),
        "redis": _state([snapshot["redis_up"] for snapshot in snapshots]),
        "internal_errors": sum(number for _, number in _internal_errors(snapshots, other_internal_errors)),
        "tables": tables,
    }


def _internal_errors(snapshots: Sequence[Snapshot], others: Mapping[str, int]) -> list[tuple[str, int]]:
    counted = [entry for snapshot in snapshots for entry in snapshot["internal_errors"].items()]
    return _summed([*counted, *others.items()])


def _state(workers: Sequence[bool]) -> str:
    return "up" if workers and all(workers) else "down"


def render(
    snapshots: Sequence[Snapshot], *, version: str, other_internal_errors: Mapping[str, int] = NO_INTERNAL_ERRORS
) -> bytes:
    """Prometheus text over all workers: counters and histograms are added up, ``process_*`` and ``*_up`` have the label
    ``worker``. ``other_internal_errors`` as in ``status``."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshots, version, other_internal_errors))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, snapshots: Sequence[Snapshot], version: str, other_internal_errors: Mapping[str, int]) -> None:
        self._snapshots = snapshots
        self._version = version
        self._other_internal_errors = other_internal_errors

    def collect(self) -> Iterator[Metric]:
        """Every metric family, in one order at every scrape."""
        build = GaugeMetricFamily("rowtap_build_info", "The running version", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        yield from self._sockets()
        yield from self._tables()
        for field_name, (name, text) in _COUNTS.items():
            yield CounterMetricFamily(
                name, text, value=sum(snapshot["counts"][field_name] for snapshot in self._snapshots)
            )
        internal = CounterMetricFamily(
            "rowtap_internal_errors",
            "Exceptions that no rule expects, so faults of Rowtap itself, by the part that caught them",
            labels=["where"],
        )
        counted = _internal_errors(self._snapshots, self._other_internal_errors)
        for where, number in _summed([*((part, 0) for part in PARTS), *counted]):
            internal.add_metric([where], number)
        yield internal
        pending = sum(snapshot["pending"] for snapshot in self._snapshots)
        yield GaugeMetricFamily("rowtap_pending_changes", "Changes observed and not yet in Redis", value=pending)
        yield _histogram(
            "rowtap_redis_lag_seconds",
            "From a change's arrival in the backlog to Redis's acknowledgement",
            [snapshot["lag"] for snapshot in self._snapshots],
        )
        yield _histogram(
            "rowtap_added_latency_seconds",
            "From the arrival of a chunk of PostgreSQL's answer to its forwarding (sampled)",
            [snapshot["latency"] for snapshot in self._snapshots],
        )
        yield from self._workers()

    def _sockets(self) -> Iterator[Metric]:
        def total(name: str) -> int:
            return sum(snapshot["sockets"][name] for snapshot in self._snapshots)

        yield GaugeMetricFamily("rowtap_sessions", "Sessions open now", value=total("sessions"))
        yield CounterMetricFamily("rowtap_connections_accepted", "Client connections accepted", value=total("accepted"))
        yield CounterMetricFamily("rowtap_cancel_requests", "CancelRequests forwarded", value=total("cancels"))
        received = CounterMetricFamily("rowtap_received_bytes", "Bytes received", labels=["sender"])
        received.add_metric(["client"], total("client_bytes"))
        received.add_metric(["backend"], total("backend_bytes"))
        yield received
        refused = CounterMetricFamily(
            "rowtap_connections_refused", "Connections Rowtap itself refused, by SQLSTATE", labels=["reason"]
        )
        for reason, number in _summed(entry for snapshot in self._snapshots for entry in snapshot["refused"].items()):
            refused.add_metric([reason], number)
        yield refused

    def _tables(self) -> Iterator[Metric]:
        rules = [entry for snapshot in self._snapshots for entry in snapshot["rules"].items()]
        changes = CounterMetricFamily(
            "rowtap_changes", "Changes applied in Redis, by table and kind", labels=["table", "kind"]
        )
        for name, kind in _CHANGES.items():
            for label, number in _summed((label, rule[name]) for label, rule in rules):
                changes.add_metric([label, kind], number)
        yield changes
        for name, text in (
            ("refused", "Fills refused because of a newer write or of their age"),
            ("dropped", "Fills dropped because Redis could not keep up or did not answer"),
        ):
            family = CounterMetricFamily(f"rowtap_fills_{name}", text, labels=["table"])
            for label, number in _summed((label, rule[name]) for label, rule in rules):
                family.add_metric([label], number)
            yield family
        for metric, text, entries in (
            (
                "rowtap_statements",
                "Statements on a configured table, by the reason code of what was done",
                [entry for snapshot in self._snapshots for entry in snapshot["statements"]],
            ),
            (
                "rowtap_unfilled_rows",
                "Rows that were read and could not fill, by reason",
                [entry for snapshot in self._snapshots for entry in snapshot["unfilled"]],
            ),
        ):
            family = CounterMetricFamily(metric, text, labels=["table", "reason"])
            for (label, reason), number in _summed(((label, reason), number) for label, reason, number in entries):
                family.add_metric([label, reason], number)
            yield family

    def _workers(self) -> Iterator[Metric]:
        postgres = GaugeMetricFamily("rowtap_postgres_up", "PostgreSQL can be reached", labels=["worker"])
        redis = GaugeMetricFamily("rowtap_redis_up", "Redis can be reached", labels=["worker"])
        cpu = CounterMetricFamily("process_cpu_seconds", "User and system CPU time", labels=["worker"])
        memory = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", labels=["worker"])
        files = GaugeMetricFamily("process_open_fds", "Open file descriptors", labels=["worker"])
        for snapshot in self._snapshots:
            labels = [str(snapshot["worker"])]
            postgres.add_metric(labels, snapshot["postgres_up"])
            redis.add_metric(labels, snapshot["redis_up"])
            for family in (cpu, memory, files):
                if family.name in snapshot["process"]:
                    family.add_metric(labels, snapshot["process"][family.name])
        yield from (postgres, redis, cpu, memory, files)


def _summed(entries: Iterable[tuple[K, int]]) -> list[tuple[K, int]]:
    """The numbers of equal keys added up, in order of first appearance."""
    totals: dict[K, int] = {}
    for key, number in entries:
        totals[key] = totals.get(key, 0) + number
    return list(totals.items())


def _histogram(name: str, text: str, parts: Sequence[Buckets]) -> HistogramMetricFamily:
    """One histogram over all workers. They run the same code, so their bounds are the same."""
    bounds = [*(str(bound) for bound in parts[0]["bounds"]), "+Inf"] if parts else ["+Inf"]
    cumulative: list[tuple[str, float]] = []
    below = 0
    for position, bound in enumerate(bounds):
        below += sum(part["buckets"][position] for part in parts)
        cumulative.append((bound, below))
    return HistogramMetricFamily(name, text, buckets=cumulative, sum_value=sum(part["total"] for part in parts))
