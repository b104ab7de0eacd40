"""The counts of several workers, as Prometheus's own parser reads them."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cache.counts import Counts
from proxy import metrics
from proxy.metrics import Traffic


def worker(number=0, *, postgres_up=True, redis_up=True):
    """A snapshot in which every number is another, after it was sent between processes as JSON."""
    counts, traffic = Counts.of(["app.public.users", 'app.public."odd"']), Traffic()
    rule = counts.rules["app.public.users"]
    rule.fills, rule.stores, rule.evicts, rule.flushes, rule.refused, rule.dropped = 10, 20, 30, 40, 50, 60
    counts.statements["app.public.users", "point-select"] = 1
    counts.row_unfilled("app.public.users", "type", 7)
    counts.sessions_blinded, counts.redis_errors, counts.redis_reconnects = 1, 2, 3
    counts.epochs, counts.collapses, counts.batches = 4, 5, 6
    counts.internal_errors.update(writer=8, session=9)
    counts.lag.add(0.0015, times=2)
    counts.lag.add(99.0)
    traffic.sessions, traffic.accepted, traffic.cancels = 3, 9, 1
    traffic.client_bytes, traffic.backend_bytes = 100, 200
    traffic.refuse("53300")
    traffic.refuse("53300")
    traffic.latency.add(0.000_02)
    taken = metrics.snapshot(counts, traffic, worker=number, pending=5, postgres_up=postgres_up, redis_up=redis_up)
    return json.loads(json.dumps(taken))


def samples(snapshots):
    """Every sample by name and labels, and every family's type by name."""
    text = metrics.render(snapshots, version="1.2.3").decode()
    families = list(text_string_to_metric_families(text))
    values = {}
    for family in families:
        for sample in family.samples:
            place = (sample.name, *sorted(sample.labels.items()))
            assert place not in values, f"{place} twice"
            values[place] = sample.value
    return values, {family.name: family.type for family in families}


USERS = ("table", "app.public.users")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("rowtap_build_info", ("version", "1.2.3")), 1),
        (("rowtap_sessions",), 3),
        (("rowtap_connections_accepted_total",), 9),
        (("rowtap_cancel_requests_total",), 1),
        (("rowtap_received_bytes_total", ("sender", "client")), 100),
        (("rowtap_received_bytes_total", ("sender", "backend")), 200),
        (("rowtap_connections_refused_total", ("reason", "53300")), 2),
        (("rowtap_changes_total", ("kind", "fill"), USERS), 10),
        (("rowtap_changes_total", ("kind", "store"), USERS), 20),
        (("rowtap_changes_total", ("kind", "evict"), USERS), 30),
        (("rowtap_changes_total", ("kind", "flush"), USERS), 40),
        (("rowtap_fills_refused_total", USERS), 50),
        (("rowtap_fills_dropped_total", USERS), 60),
        (("rowtap_statements_total", ("reason", "point-select"), USERS), 1),
        (("rowtap_unfilled_rows_total", ("reason", "type"), USERS), 7),
        (("rowtap_sessions_blinded_total",), 1),
        (("rowtap_redis_errors_total",), 2),
        (("rowtap_redis_reconnects_total",), 3),
        (("rowtap_epochs_total",), 4),
        (("rowtap_backlog_collapses_total",), 5),
        (("rowtap_batches_total",), 6),
        (("rowtap_internal_errors_total", ("where", "writer")), 8),
        (("rowtap_internal_errors_total", ("where", "session")), 9),
        (("rowtap_pending_changes",), 5),
        (("rowtap_redis_lag_seconds_bucket", ("le", "0.001")), 0),
        (("rowtap_redis_lag_seconds_bucket", ("le", "0.002")), 2),
        (("rowtap_redis_lag_seconds_bucket", ("le", "30.0")), 2),
        (("rowtap_redis_lag_seconds_bucket", ("le", "+Inf")), 3),
        (("rowtap_redis_lag_seconds_count",), 3),
        (("rowtap_redis_lag_seconds_sum",), 99.003),
        (("rowtap_added_latency_seconds_bucket", ("le", "2.5e-05")), 1),
        (("rowtap_added_latency_seconds_count",), 1),
    ],
)
def test_every_number_is_the_sum_over_the_workers(place, value):
    one, _ = samples([worker()])
    assert one[place] == pytest.approx(value)
    three, _ = samples([worker(0), worker(1), worker(2)])
    assert three[place] == pytest.approx(value if place[0] == "rowtap_build_info" else 3 * value)


def test_rule_without_changes_is_there_at_zero():
    values, _ = samples([worker()])
    assert values["rowtap_changes_total", ("kind", "fill"), ("table", 'app.public."odd"')] == 0


def test_families_have_the_types_of_their_names():
    _, types = samples([worker()])
    assert types["rowtap_sessions"] == "gauge"
    assert types["rowtap_changes"] == "counter"
    assert types["rowtap_redis_lag_seconds"] == "histogram"
    assert types["rowtap_added_latency_seconds"] == "histogram"
    assert "unknown" not in types.values()


def test_numbers_whose_sum_means_nothing_have_the_workers_label():
    values, _ = samples([worker(0), worker(1, redis_up=False)])
    assert values["rowtap_redis_up", ("worker", "0")] == 1
    assert values["rowtap_redis_up", ("worker", "1")] == 0
    assert values["process_cpu_seconds_total", ("worker", "1")] > 0


def test_metrics_are_rendered_without_a_worker():
    values, _ = samples([])
    assert values["rowtap_sessions",] == 0


def test_status_adds_up_the_workers():
    status = metrics.status([worker(0), worker(1)], version="1", started=0.0)
    assert status["version"] == "1"
    assert status["uptime"] > 0
    assert (status["workers"], status["sessions"], status["pending_changes"]) == (2, 6, 10)
    assert (status["postgres"], status["redis"]) == ("up", "up")
    assert status["internal_errors"] == 34
    assert status["tables"]["app.public.users"] == {
        "fills": 20, "stores": 40, "evicts": 60, "flushes": 80, "refused": 100, "dropped": 120,
    }  # fmt: skip


def test_status_is_down_if_one_worker_reaches_nothing():
    assert metrics.status([worker(0), worker(1, redis_up=False)], version="1", started=0.0)["redis"] == "down"
    assert metrics.status([worker(0, postgres_up=False)], version="1", started=0.0)["postgres"] == "down"
    assert metrics.status([], version="1", started=0.0)["postgres"] == "down"


def test_internal_errors_of_the_answering_process_are_added_by_part():
    others = {"writer": 1, "admin": 2}
    status = metrics.status([worker(0), worker(1)], version="1", started=0.0, other_internal_errors=others)
    assert status["internal_errors"] == 37
    text = metrics.render([worker(0), worker(1)], version="1", other_internal_errors=others).decode()
    counted = {where: f'rowtap_internal_errors_total{{where="{where}"}}' for where in ("writer", "session", "admin")}
    for where, number in (("writer", 17), ("session", 18), ("admin", 2)):
        assert f"{counted[where]} {number}.0" in text


def test_internal_errors_of_every_part_are_exported_at_zero():
    snapshot = metrics.snapshot(Counts(), Traffic(), pending=0, postgres_up=True, redis_up=True)
    assert metrics.status([snapshot], version="1", started=0.0)["internal_errors"] == 0
    values, types = samples([snapshot])
    assert types["rowtap_internal_errors"] == "counter"
    found = {place[1][1]: value for place, value in values.items() if place[0] == "rowtap_internal_errors_total"}
    assert found == dict.fromkeys(metrics.PARTS, 0)


def test_memory_and_descriptors_are_absent_where_there_is_no_proc(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    values, _ = samples([worker()])
    assert values["process_cpu_seconds_total", ("worker", "0")] > 0
    assert not [place for place in values if place[0] in {"process_open_fds", "process_resident_memory_bytes"}]
