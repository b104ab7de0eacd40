"""What the admin endpoint says about a group of workers, some of which do not answer."""

import pytest

from cache.counts import Counts
from proxy import metrics
from proxy.config.load import load
from proxy.demo.servers import HOST, free_port
from proxy.metrics import Traffic
from proxy.process.worker_group import WorkerGroupReports


class Workers:
    """A `WorkerGroup` of two, of which as many answer as there are arguments, with these states of Redis."""

    size = 2

    def __init__(self, *redis_up, draining=False):
        self.draining = draining
        self.internal_errors = {"worker": 3}
        self._redis_up = redis_up

    async def snapshots(self):
        counts = Counts.of(["app.public.users"])
        counts.internal_error("writer")
        return [
            metrics.snapshot(counts, Traffic(), worker=number, pending=2, postgres_up=True, redis_up=up)
            for number, up in enumerate(self._redis_up)
        ]


@pytest.fixture
def reports(postgres):
    """`reports(workers, port=…)`: their reports, in front of `postgres` by default."""

    def make(workers, port=None):
        environment = {"ROWTAP_POSTGRES__HOST": HOST, "ROWTAP_POSTGRES__PORT": str(port or postgres.port)}
        return WorkerGroupReports(load(None, None, environment).postgres, workers)

    return make


@pytest.mark.parametrize(
    ("workers", "reasons"),
    [
        (Workers(True, True), []),
        (Workers(True, False), ["Redis cannot be reached"]),
        (Workers(True), ["1 of 2 workers do not answer"]),
        (Workers(), ["2 of 2 workers do not answer"]),
        (
            Workers(False, draining=True),
            ["draining: no new sessions are accepted", "1 of 2 workers do not answer", "Redis cannot be reached"],
        ),
    ],
)
async def test_every_reason_not_to_be_ready_is_given(reports, workers, reasons):
    assert await reports(workers).not_ready() == reasons


async def test_not_ready_while_postgresql_cannot_be_reached(reports):
    port = free_port()
    found = reports(Workers(True, True), port)
    (reason,) = await found.not_ready()
    assert reason == f"could not connect to PostgreSQL at {HOST}:{port}: connection refused"
    assert (await found.status())["postgres"] == "down"


@pytest.mark.parametrize(
    ("workers", "pending"), [(Workers(True, True), 4), (Workers(True), None), (Workers(True, draining=True), 2)]
)
async def test_pending_changes_are_unknown_while_a_worker_does_not_answer_unless_draining(reports, workers, pending):
    assert (await reports(workers).status())["pending_changes"] == pending


async def test_internal_errors_of_the_answering_process_are_added_to_those_of_the_workers(reports):
    found = reports(Workers(True, True))
    assert (await found.status())["internal_errors"] == 5
    text = (await found.metrics()).decode()
    assert 'rowtap_internal_errors_total{where="worker"} 3.0' in text
    assert 'rowtap_internal_errors_total{where="writer"} 2.0' in text
