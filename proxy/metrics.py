"""What is counted becomes Prometheus text and the numbers of ``/status``.

A *snapshot* is one worker's counts as plain JSON-able data, so that whoever answers for several workers can collect
theirs and add them up. The hot path adds to plain integers (``cache.counts`` and ``Traffic``); everything here runs at
scrape time.
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
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client import Metric

    from cache.counts import Counts

K = TypeVar("K")

LATENCY_BOUNDS: tuple[float, ...] = (
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
)  # fmt: skip
"""Seconds. What Rowtap adds to an answer is microseconds; what is above a millisecond is trouble."""


@dataclass(slots=True)
class Traffic:
    """What one worker's sockets carried. All numbers only grow, except where a docstring says otherwise."""

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
    """Connections Rowtap itself refused, by SQLSTATE ("garbage" where nothing could be answered)."""
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
    """One worker's counts at one moment. JSON-able."""

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
    """By the part that caught them."""
    counts: dict[str, int]
    """The plain integers of ``Counts``."""
    sockets: dict[str, int]
    """The plain integers of ``Traffic``."""
    refused: dict[str, int]
    lag: Buckets
    latency: Buckets
    process: dict[str, float]


_COUNTS = {
    "sessions_blinded": ("rowtap_sessions_blinded", "Sessions whose traffic could not be followed any longer"),
    "unconfirmed": ("rowtap_unconfirmed_writes", "Writes forwarded before Redis confirmed that their keys were gone"),
    "redis_errors": ("rowtap_redis_errors", "Failed exchanges with Redis"),
    "redis_reconnects": ("rowtap_redis_reconnects", "Connections made to Redis after the first"),
    "epochs": ("rowtap_epochs", "Epochs begun because Redis was another or had gone back in time"),
    "collapses": ("rowtap_backlog_collapses", "Times a full backlog turned a table's pending writes into one Flush"),
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
    """What this process uses, under the names Prometheus's own client libraries use; what cannot be known is absent."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {"process_cpu_seconds": usage.ru_utime + usage.ru_stime}
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        found["process_resident_memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
        found["process_open_fds"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only, no Path for each
    return found


def status(snapshots: Sequence[Snapshot], *, version: str, started: float) -> dict[str, Any]:
    """The numbers of ``/status`` over all workers. ``started`` is the ``time.monotonic()`` of the start."""
    tables: dict[str, dict[str, int]] = {}
    for one in snapshots:
        for label, rule in one["rules"].items():
            total = tables.setdefault(label, dict.fromkeys(rule, 0))
            for name, number in rule.items():
                total[name] += number
    return {
        "version": version,
        "uptime": round(time.monotonic() - started, 3),
        "workers": len(snapshots),
        "sessions": sum(one["sockets"]["sessions"] for one in snapshots),
        "pending_changes": sum(one["pending"] for one in snapshots),
        "postgres": _state([one["postgres_up"] for one in snapshots]),
        "redis": _state([one["redis_up"] for one in snapshots]),
        "internal_errors": sum(number for one in snapshots for number in one["internal_errors"].values()),
        "tables": tables,
    }


def _state(workers: Sequence[bool]) -> str:
    return "up" if workers and all(workers) else "down"


def render(snapshots: Sequence[Snapshot], *, version: str) -> bytes:
    """Prometheus text over all workers: counters and histograms added up, ``process_*`` and ``*_up`` told apart."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshots, version))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, snapshots: Sequence[Snapshot], version: str) -> None:
        self._snapshots = snapshots
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Every metric family, in one order at every scrape."""
        build = GaugeMetricFamily("rowtap_build_info", "The running version", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        yield from self._sockets()
        yield from self._tables()
        for field_name, (name, text) in _COUNTS.items():
            yield CounterMetricFamily(name, text, value=sum(one["counts"][field_name] for one in self._snapshots))
        internal = CounterMetricFamily(
            "rowtap_internal_errors",
            "Unexpected exceptions: faults of Rowtap itself, whose tracebacks are in the log",
            labels=["where"],
        )
        for where, number in _summed(entry for one in self._snapshots for entry in one["internal_errors"].items()):
            internal.add_metric([where], number)
        yield internal
        pending = sum(one["pending"] for one in self._snapshots)
        yield GaugeMetricFamily("rowtap_pending_changes", "Changes observed and not yet in Redis", value=pending)
        yield _histogram(
            "rowtap_redis_lag_seconds",
            "From a change's certainty to Redis's acknowledgement",
            [one["lag"] for one in self._snapshots],
        )
        yield _histogram(
            "rowtap_added_latency_seconds",
            "Time Rowtap took to pass on a chunk of PostgreSQL's answer (sampled)",
            [one["latency"] for one in self._snapshots],
        )
        yield from self._workers()

    def _sockets(self) -> Iterator[Metric]:
        def total(name: str) -> int:
            return sum(one["sockets"][name] for one in self._snapshots)

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
        for reason, number in _summed(entry for one in self._snapshots for entry in one["refused"].items()):
            refused.add_metric([reason], number)
        yield refused

    def _tables(self) -> Iterator[Metric]:
        rules = [entry for one in self._snapshots for entry in one["rules"].items()]
        changes = CounterMetricFamily(
            "rowtap_changes", "Changes applied in Redis, by table and kind", labels=["table", "kind"]
        )
        for name, kind in _CHANGES.items():
            for label, number in _summed((label, rule[name]) for label, rule in rules):
                changes.add_metric([label, kind], number)
        yield changes
        for name, text in (
            ("refused", "Fills that a newer write or their age forbade"),
            ("dropped", "Fills given up because Redis could not keep up or did not answer"),
        ):
            family = CounterMetricFamily(f"rowtap_fills_{name}", text, labels=["table"])
            for label, number in _summed((label, rule[name]) for label, rule in rules):
                family.add_metric([label], number)
            yield family
        for metric, text, entries in (
            (
                "rowtap_statements",
                "Statements on a configured table, by what became of them",
                [entry for one in self._snapshots for entry in one["statements"]],
            ),
            (
                "rowtap_unfilled_rows",
                "Rows read that could not fill, by reason",
                [entry for one in self._snapshots for entry in one["unfilled"]],
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
        for one in self._snapshots:
            labels = [str(one["worker"])]
            postgres.add_metric(labels, one["postgres_up"])
            redis.add_metric(labels, one["redis_up"])
            for family in (cpu, memory, files):
                if family.name in one["process"]:
                    family.add_metric(labels, one["process"][family.name])
        yield from (postgres, redis, cpu, memory, files)


def _summed(entries: Iterable[tuple[K, int]]) -> list[tuple[K, int]]:
    """Numbers added up by what they count, in order of first appearance."""
    totals: dict[K, int] = {}
    for key, number in entries:
        totals[key] = totals.get(key, 0) + number
    return list(totals.items())


def _histogram(name: str, text: str, parts: Sequence[Buckets]) -> HistogramMetricFamily:
    """One histogram over all workers, whose bounds are the same: they run the same code."""
    bounds = [*(str(bound) for bound in parts[0]["bounds"]), "+Inf"] if parts else ["+Inf"]
    cumulative: list[tuple[str, float]] = []
    below = 0
    for position, bound in enumerate(bounds):
        below += sum(part["buckets"][position] for part in parts)
        cumulative.append((bound, below))
    return HistogramMetricFamily(name, text, buckets=cumulative, sum_value=sum(part["total"] for part in parts))
