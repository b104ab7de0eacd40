"""What the model of the ordering rules looks at: the records of which a state consists, and small questions to them.

Of a value only two things count: whether it is there, and whether it is the last one, since an old value never
becomes current again. Numbers are counter values (dates) and instants; a worker's instants are compared with each
other only.
"""

from functools import lru_cache
from typing import NamedTuple

from cache.changes import Change, Kind
from cache.keys import KeyTemplate
from cache.rules import TableRule, ValueFormat

STALE, CURRENT = 1, 2
"""Of a field. 0: it is not there."""
FOREVER = 1 << 30
"""A date that no fence is newer than."""


_RULE = TableRule(
    "d",
    "s",
    "t",
    ("id",),
    ("a", "b"),
    KeyTemplate.default(database="d", schema="s", table="t", key_columns=("id",)),
    ValueFormat.HASH,
)


class Op(NamedTuple):
    """An operation under way."""

    kinds: tuple[str, ...]
    seq: int
    sent_ns: int
    effective: bool = False
    a: int = 0
    b: int = 0
    old: bool = False
    blocked: int = 2
    """Its block: 0: not asked for, 1: keys are still to be looked for, 2: confirmed."""
    block_set: bool = False
    """Its block's name is in Redis."""


class Item(NamedTuple):
    """A change of the key in a backlog or a batch."""

    kind: Kind
    seq: int
    sent_ns: int
    settled_ns: int
    a: int = 0
    b: int = 0
    partial: bool = False
    old: bool = False


class Batch(NamedTuple):
    """What a worker sends, or sent: at most one change, a Flush, and releases of blocks."""

    item: Item | None
    flush: bool
    epoch: int
    applied: bool = False
    seq: int = 0
    newest: bool = False
    late: bool = False
    accepted: bool = True
    """False: Redis did not know the worker any more."""
    releases: tuple[int, ...] = ()


class Worker(NamedTuple):
    """A worker, with its operations."""

    seq: int
    epoch: int = 1
    ops: tuple[Op, ...] = ()
    item: Item | None = None
    flush: bool = False
    in_flight: Batch | None = None
    scan: bool = False
    given_up: Batch | None = None
    """A batch that was given up and may still reach Redis."""
    recent: tuple[int, int, int] | None = None
    releases: tuple[int, ...] = ()
    """Blocks of answered writes, to be released with the next batch."""
    blocks: tuple[int, ...] = ()
    """Those of answered writes whose names are in Redis."""


class Redis(NamedTuple):
    a: int = 0
    b: int = 0
    """0: the key is absent."""
    fence: int = 0
    table: int = 0
    seq: int = 1
    floor: int = 1
    epoch: int = 1
    real: int = 1
    """Which Redis it truly is; ``epoch`` lags behind until a worker joins."""
    blocks: tuple[int, ...] = ()
    """Names of blocks. In a `State` they are with their workers."""


class State(NamedTuple):
    todo: tuple[tuple[int | None, tuple[str, ...]], ...]
    """Operations that may still begin: of which worker (None: of either), and of which kinds."""
    events: tuple[str, ...]
    workers: tuple[Worker, Worker]
    redis: Redis
    saved: Redis | None


def restored(state):
    """Redis is what it was long before, and knows no block."""
    workers = tuple(
        worker._replace(blocks=(), ops=tuple(op._replace(block_set=False) for op in worker.ops))
        for worker in state.workers
    )
    redis = state.saved._replace(real=state.redis.real + 1)
    return state._replace(events=less(state.events, "restore"), workers=workers, redis=redis, saved=None)


def overwritten(state, *, whole):
    """A write took effect: no value that is anywhere is current any more; of `b` neither, if it was ``whole``."""
    first, second = state.workers
    workers = behind(first, whole), behind(second, whole)
    return State(state.todo, state.events, workers, outdated(state.redis, whole), outdated(state.saved, whole))


@lru_cache(1 << 16)
def behind(worker, whole):
    """The worker with every value it has an old one."""
    batch, given_up = worker.in_flight, worker.given_up
    return worker._replace(
        ops=tuple(outdated(op, whole) for op in worker.ops),
        item=outdated(worker.item, whole),
        in_flight=batch and batch._replace(item=outdated(batch.item, whole)),
        given_up=given_up and given_up._replace(item=outdated(given_up.item, whole)),
    )


def outdated(record, whole):
    """``record`` of a value, if there is one, with that value an old one."""
    if record is None:
        return None
    return record._replace(a=min(record.a, STALE), b=min(record.b, STALE) if whole else record.b)


def evicted(item):
    """The write ``item``, of which the key's removal is left."""
    return item._replace(kind=Kind.EVICT, a=0, b=0, partial=False)


def released(batch):
    """The blocks a batch releases, if there is one."""
    return batch.releases if batch else ()


def put_worker(state, w, worker):
    workers = (worker, state.workers[1]) if w == 0 else (state.workers[0], worker)
    return State(state.todo, state.events, workers, state.redis, state.saved)


def put_op(state, w, i, op):
    worker = state.workers[w]
    return put_worker(state, w, worker._replace(ops=(*worker.ops[:i], op, *worker.ops[i + 1 :])))


def less(events, event):
    """``events`` when one has happened."""
    left = list(events)
    left.remove(event)
    return tuple(left)


def items(worker):
    """What is waiting or under way."""
    batches = (batch.item for batch in (worker.in_flight, worker.given_up) if batch)
    return [item for item in (worker.item, *batches) if item]


def dates(worker):
    """Every date it knows of."""
    found = {worker.seq, *(op.seq for op in worker.ops), *(item.seq for item in items(worker))}
    found.update(batch.seq for batch in (worker.in_flight, worker.given_up) if batch)
    if worker.recent:
        found.update(worker.recent[1:])
    return found - {FOREVER}


def instants(worker):
    """Every instant it knows of, and 0."""
    found = {0, *(op.sent_ns for op in worker.ops)}
    for item in items(worker):
        found.update((item.sent_ns, item.settled_ns))
    if worker.recent:
        found.add(worker.recent[0])
    return found


def clock(worker):
    """Now, for a worker."""
    return max(instants(worker)) + 1


def idle(worker):
    """It has nothing left to do."""
    return not (
        worker.ops
        or worker.item
        or worker.flush
        or worker.in_flight
        or worker.scan
        or worker.given_up
        or worker.releases
    )


def stale(state):
    """Whether Redis holds an old value."""
    return bool(state.redis.a) and (state.redis.a, state.redis.b) != (CURRENT, CURRENT)


def change(item):
    """The item as `cache.merging` knows it."""
    value = None
    if item.kind is not Kind.EVICT:
        value = {b"a": b"%d" % item.a} if item.partial else {b"a": b"%d" % item.a, b"b": b"%d" % item.b}
    return Change(item.kind, _RULE, b"t:1", value, item.seq, item.sent_ns, item.settled_ns, partial=item.partial)


def uncover(merged, old):
    """The item that became of it."""
    value = merged.value or {}
    a, b = int(value.get(b"a", 0)), int(value.get(b"b", 0))
    return Item(merged.kind, merged.seq, merged.sent_ns, merged.settled_ns, a, b, merged.partial, old)
