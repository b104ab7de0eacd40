"""The ordering rules on one key, small enough to look at every interleaving of a few operations by two workers.

A row has two fields, `a` and `b`; their values are version numbers, so that a value is stale exactly when it is not
the last one. The backlog's merging is the real one (`cache.merging`); the rest of it and the script that Redis runs
are written down here once more, in their simplest form. Each rule can be left out by name (`RULES`).

Operations: `store` writes both fields and shows what it wrote, `partial` writes `a` and shows that alone, `unknown`
writes both and shows nothing, `flush` does so without naming the key, `fill` reads, `undone` is rolled back.
An operation is forwarded, takes effect in PostgreSQL, and is answered; a worker takes a batch, Redis applies it, the
worker hears of it. Anything may happen between any two of these.
Events: `lost` breaks a worker's connection while a batch is under way; `age` lets so much time pass that all fences
are gone; `restore` puts back what Redis held long before; `beat` tells a worker the counter, as a batch of other keys
would; `hurry` forwards a write that should have waited for its block.

With `before_commit` each write waits for its block. Then, besides, nobody may read from Redis what is older than a
write that was answered, at any instant (not after `restore` or `hurry`, which nothing can promise for).
"""

from itertools import combinations_with_replacement, pairwise
from typing import Any, NamedTuple

from cache.changes import Change, Kind
from cache.keys import KeyTemplate
from cache.merging import merge
from cache.rules import TableRule, ValueFormat

RULES = (
    "a statement is dated when it is forwarded",
    "a write sets the key's fence",
    "a Flush sets the table's fence",
    "a Store yields to a newer fence of its key",
    "a Store yields to a newer fence of its table",
    "a Fill yields to a newer fence of its key",
    "a Fill yields to a newer fence of its table",
    "a Flush looks for keys after its fence is set",
    "overlapping writes evict",
    "a write ordered after another replaces it",
    "a write replaces a waiting Fill",
    "a Fill that began before a waiting write ended is dropped",
    "a Fill in a write's place sets the fence",
    "a Fill in a write's place has the Fill's date",
    "combined fields have the older date",
    "a partial value is written to a hash that is there",
    "a new date needs a write that began later",
    "a new date needs that nobody else wrote",
    "a batch of unknown fate is sent again",
    "what is too old is evicted or dropped",
    "a batch under way for too long is refused",
    "a new epoch counts from above all dates",
    "a new epoch flushes",
)
BLOCK_RULES = (
    "a write waits for its block",
    "a block removes the key",
    "a Flush's block looks for keys after its hold is set",
    "a block refuses Fills",
    "a block makes others' Stores evict",
    "a block is lifted with the outcome",
)
KINDS = ("store", "partial", "unknown", "flush", "fill")
EVENTS = ("lost", "age", "restore", "beat", "hurry")

_RULE = TableRule(
    "d",
    "s",
    "t",
    ("id",),
    ("a", "b"),
    KeyTemplate.default(database="d", schema="s", table="t", key_columns=("id",)),
    ValueFormat.HASH,
)
_KIND = {"store": Kind.STORE, "partial": Kind.STORE, "unknown": Kind.EVICT, "flush": Kind.FLUSH, "fill": Kind.FILL}


class Op(NamedTuple):
    """An operation under way."""

    kind: str
    worker: int
    effective: bool
    date: int
    began: int
    a: int = 0
    b: int = 0
    old: bool = False
    holder: int = 0
    """Its block's name; 0: it has none. Negative: the block is the table's."""
    blocked: int = 2
    """0: not asked for, 1: keys are still to be looked for, 2: confirmed."""


class Item(NamedTuple):
    """A change of the key in a backlog or a batch."""

    kind: Kind
    date: int
    began: int
    ended: int
    a: int = 0
    b: int = 0
    partial: bool = False
    old: bool = False


class Flight(NamedTuple):
    item: Item | None
    flush: bool
    epoch: int
    applied: bool = False
    seq: int = 0
    newest: bool = False
    late: bool = False
    accepted: bool = True
    """False: Redis did not know the worker any more."""
    lifts: tuple[int, ...] = ()


class Worker(NamedTuple):
    date: int
    epoch: int
    item: Item | None = None
    flush: bool = False
    flight: Flight | None = None
    scan: bool = False
    ghost: Flight | None = None
    """A batch that was given up and may still reach Redis."""
    recent: tuple[int, int, int] | None = None
    lifts: tuple[int, ...] = ()
    """Holders of blocks to lift with the next batch."""


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
    holds: tuple[int, ...] = ()
    """Holders of blocks, of the key and of the table."""


class State(NamedTuple):
    todo: tuple[tuple[str, int], ...]
    events: tuple[str, ...]
    ops: tuple[Op, ...]
    workers: tuple[Worker, ...]
    redis: Redis
    saved: Redis | None
    a: int
    b: int
    told_a: int = 1
    told_b: int = 1
    """The newest version whose write was answered."""


class Model:
    """The rules, without those in ``without``."""

    def __init__(self, without=(), *, before_commit=False):
        unknown = set(without) - {*RULES, *BLOCK_RULES}
        assert not unknown, unknown
        self.without = frozenset(without)
        self.before_commit = before_commit

    def has(self, rule):
        return rule not in self.without

    def stale(self, ops, events=()):
        """The first sequence of states found to end with what must not be, or None; `states` counts those visited.

        At first the key is in Redis, or is not.
        """
        promised = self.before_commit and not {"restore", "hurry"} & {*events}
        workers = (Worker(6, 1), Worker(6, 1))
        stack: list[tuple[State, Any]] = []
        for before in (Redis(1, 1), Redis()):
            saved = before if "restore" in events else None
            redis = before._replace(seq=6)
            start = State(tuple(sorted(ops)), tuple(sorted(events)), (), workers, redis, saved, 1, 1)
            stack.append((start, None))
        seen = {start for start, _ in stack}
        self.states = 0
        while stack:
            node = stack.pop()
            state = node[0]
            self.states += 1
            moved = False
            for following in self.moves(state):
                moved = True
                following = canonical(following)
                if following not in seen:
                    seen.add(following)
                    stack.append((following, node))
            if (not moved or settled(state)) and self.wrong(state):
                return trace(node)
            if promised and state.redis.a and (state.redis.a < state.told_a or state.redis.b < state.told_b):
                return trace(node)
        return None

    def wrong(self, state):
        """What must not be at rest: a stale value, or a block that nobody lifts."""
        redis = state.redis
        return (redis.a and (redis.a, redis.b) != (state.a, state.b)) or (redis.holds and settled(state))

    def moves(self, state):
        """Every state that may come next."""
        yield from self.start(state)
        for i, op in enumerate(state.ops):
            if op.effective:
                yield self.answer(state, i, op)
            elif op.blocked == 2 or not self.has("a write waits for its block"):
                yield self.effect(state, i, op)
            elif "hurry" in state.events:
                yield self.effect(state._replace(events=less(state.events, "hurry")), i, op)
            if op.blocked < 2:
                yield self.block(state, i, op)
        for w, worker in enumerate(state.workers):
            flight = worker.flight
            if flight is None:
                if worker.epoch != state.redis.real:
                    # A heartbeat tells it, if it has nothing to send.
                    yield self.join(state, w, worker)
                if worker.item or worker.flush or worker.lifts:
                    yield self.take(state, w, worker)
                if worker.scan:
                    redis = state.redis._replace(a=0, b=0)
                    yield put_worker(state._replace(redis=redis), w, worker._replace(scan=False))
            else:
                if not flight.applied:
                    redis, applied = self.apply(state.redis, flight)
                    yield put_worker(state._replace(redis=redis), w, worker._replace(flight=applied))
                else:
                    yield self.hear(state, w, worker, flight)
                if "lost" in state.events:
                    yield from self.lose(state, w, worker, flight)
            if worker.ghost is not None:
                redis, _ = self.apply(state.redis, worker.ghost)
                yield put_worker(state._replace(redis=redis), w, worker._replace(ghost=None))
        yield from self.happen(state)

    def happen(self, state):
        """What the events that are left can do."""
        if "age" in state.events:
            yield self.age(state)
        if "beat" in state.events:
            for w, worker in enumerate(state.workers):
                if worker.flight is None and worker.epoch == state.redis.real:
                    told = worker._replace(date=max(worker.date, state.redis.seq))
                    yield put_worker(state._replace(events=less(state.events, "beat")), w, told)
        if "restore" in state.events:
            real = state.redis.real + 1
            yield state._replace(
                events=less(state.events, "restore"),
                redis=state.saved._replace(real=real),
                saved=None,
            )

    # Sessions.

    def start(self, state):
        for i, (kind, w) in enumerate(state.todo):
            if i and state.todo[i - 1] == (kind, w):
                continue
            op = Op(kind, w, False, state.workers[w].date, clock(state))
            if self.before_commit and kind != "fill":
                number = len(state.todo)
                op = op._replace(holder=-number if kind == "flush" else number, blocked=0)
            yield state._replace(todo=state.todo[:i] + state.todo[i + 1 :], ops=(*state.ops, op))

    def block(self, state, i, op):
        """Redis does as it is asked for a write that waits; this may also come too late to be waited for."""
        redis, blocked = state.redis, 2
        if op.blocked == 0:
            redis = redis._replace(holds=tuple(sorted((*redis.holds, op.holder))))
            if op.holder < 0 and self.has("a Flush's block looks for keys after its hold is set"):
                blocked = 1
            elif op.holder > 0 and self.has("a block removes the key"):
                redis = redis._replace(a=0, b=0)
        else:
            redis = redis._replace(a=0, b=0)
        op = op._replace(blocked=blocked)
        return state._replace(redis=redis, ops=(*state.ops[:i], op, *state.ops[i + 1 :]))

    def effect(self, state, i, op):
        a, b = state.a, state.b
        if op.kind not in ("fill", "undone"):
            version = max(versions(state)) + 1
            a, b = version, b if op.kind == "partial" else version
        op = op._replace(effective=True, a=a, b=b)
        return state._replace(a=a, b=b, ops=(*state.ops[:i], op, *state.ops[i + 1 :]))

    def answer(self, state, i, op):
        worker = state.workers[op.worker]
        state = state._replace(ops=state.ops[:i] + state.ops[i + 1 :])
        date = op.date if self.has("a statement is dated when it is forwarded") else worker.date
        now = clock(state, op.began)
        if op.holder:
            state, worker = self.release(state, op, worker)
        if op.kind == "undone":
            return put_worker(state, op.worker, worker)
        if op.kind != "fill":
            told_b = state.told_b if op.kind == "partial" else max(state.told_b, op.b)
            state = state._replace(told_a=max(state.told_a, op.a), told_b=told_b)
        if op.kind == "flush":
            return put_worker(state, op.worker, worker._replace(flush=True, item=None))
        a = 0 if op.kind == "unknown" else op.a
        b = 0 if op.kind in ("unknown", "partial") else op.b
        item = Item(_KIND[op.kind], date, op.began, now, a, b, partial=op.kind == "partial", old=op.old)
        if worker.flush:
            return put_worker(state, op.worker, worker)
        item = self.redate(item, worker.recent)
        return put_worker(state, op.worker, worker._replace(item=self.merge(worker.item, item)))

    def release(self, state, op, worker):
        """The outcome is known: the block goes with the batch that the outcome goes with."""
        if op.blocked == 0:
            return state, worker
        if self.has("a block is lifted with the outcome"):
            return state, worker._replace(lifts=tuple(sorted((*worker.lifts, op.holder))))
        left = tuple(holder for holder in state.redis.holds if holder != op.holder)
        return state._replace(redis=state.redis._replace(holds=left)), worker

    # The backlog.

    def redate(self, item, recent):
        if recent is None:
            return item
        ended, date, seq = recent
        later = item.began > ended or not self.has("a new date needs a write that began later")
        return item._replace(date=seq) if later and date <= item.date < seq else item

    def merge(self, waiting, item):
        if waiting is None:
            return item
        old = waiting.old or item.old
        reads = item.kind is Kind.FILL
        over_fill = waiting.kind is Kind.FILL
        if over_fill and not reads and not self.has("a write replaces a waiting Fill"):
            return waiting
        if reads and not over_fill:
            if not self.has("a Fill that began before a waiting write ended is dropped"):
                return item._replace(kind=Kind.STORE, ended=waiting.ended, old=old)
        elif not reads and not over_fill:
            overlap = item.began <= waiting.ended
            if overlap and not self.has("overlapping writes evict"):
                return item._replace(old=old)
            if not overlap and not self.has("a write ordered after another replaces it"):
                return waiting
        result = uncover(merge(change(waiting), change(item)), old)
        if reads and not over_fill and (result.date, result.began) == (item.date, item.began):
            return self.in_place(result, item)
        combined = result.kind is Kind.STORE and item.partial and not result.partial
        if combined and not self.has("combined fields have the older date"):
            result = result._replace(date=max(waiting.date, item.date))
        return result

    def in_place(self, result, fill):
        """A Fill took a write's place."""
        result = result._replace(old=fill.old)
        if not self.has("a Fill in a write's place sets the fence"):
            result = result._replace(kind=Kind.FILL, ended=fill.ended)
        if not self.has("a Fill in a write's place has the Fill's date"):
            result = result._replace(date=1 << 30)
        return result

    def take(self, state, w, worker):
        item = worker.item
        if item is not None and item.old and self.has("what is too old is evicted or dropped"):
            item = None if item.kind is Kind.FILL else item._replace(kind=Kind.EVICT, a=0, b=0, partial=False)
        flight = Flight(item, worker.flush, worker.epoch, lifts=worker.lifts)
        if item is None and not worker.flush and not worker.lifts:
            return put_worker(state, w, worker._replace(item=None))
        worker = worker._replace(lifts=())
        scan = worker.scan
        if worker.flush and not self.has("a Flush looks for keys after its fence is set"):
            state = state._replace(redis=state.redis._replace(a=0, b=0))
        return put_worker(state, w, worker._replace(item=None, flush=False, flight=flight, scan=scan))

    def hear(self, state, w, worker, flight):
        if not flight.accepted:
            return self.join(state, w, self.put_back(worker, flight, unknown=False))
        worker = worker._replace(flight=None, date=max(worker.date, flight.seq))
        if flight.flush and self.has("a Flush looks for keys after its fence is set"):
            worker = worker._replace(scan=True)
        item = flight.item
        newest = flight.newest or not self.has("a new date needs that nobody else wrote")
        if item is not None and item.kind is not Kind.FILL and not item.old and newest:
            recent = (item.ended, item.date, flight.seq)
            worker = worker._replace(recent=recent, item=worker.item and self.redate(worker.item, recent))
        return put_worker(state, w, worker)

    def put_back(self, worker, flight, *, unknown):
        item = flight.item
        if item is not None and unknown:
            keep = self.has("a batch of unknown fate is sent again") and item.kind is not Kind.FILL
            item = item._replace(kind=Kind.EVICT, a=0, b=0, partial=False) if keep else None
        flush = worker.flush or flight.flush
        if item is not None and worker.item is not None:
            item = self.merge(item, worker.item)
        elif item is None:
            item = worker.item
        if flush:
            item = None
        lifts = tuple(sorted((*worker.lifts, *flight.lifts)))
        return worker._replace(item=item, flush=flush, flight=None, scan=worker.scan, lifts=lifts)

    def lose(self, state, w, worker, flight):
        back = self.put_back(worker, flight, unknown=True)
        state = state._replace(events=less(state.events, "lost"))
        yield put_worker(state, w, back)
        if not flight.applied:
            yield put_worker(state, w, back._replace(ghost=flight))

    def join(self, state, w, worker):
        """A worker finds that Redis is not the one it knew, or that another worker did."""
        redis = state.redis
        if redis.epoch < redis.real:
            seq = redis.seq + 1
            if self.has("a new epoch counts from above all dates"):
                seq = max(redis.seq, *(x.date for x in state.workers)) + 1
            redis = redis._replace(seq=seq, floor=seq, epoch=redis.real)
        flush = worker.flush or self.has("a new epoch flushes")
        item = None if flush else worker.item
        worker = worker._replace(date=redis.seq, epoch=redis.epoch, flush=flush, item=item, recent=None)
        return put_worker(state._replace(redis=redis), w, worker)

    def age(self, state):
        """So much time passes that every fence is gone, and every statement under way is older than that."""
        workers = []
        for worker in state.workers:
            late = self.has("a batch under way for too long is refused")
            flight, ghost = worker.flight, worker.ghost
            if flight is not None and not flight.applied:
                flight = flight._replace(late=late)
            if flight is not None and flight.applied:
                flight = flight._replace(newest=False)
            if ghost is not None:
                ghost = ghost._replace(late=late)
            item = worker.item and worker.item._replace(old=True)
            workers.append(worker._replace(item=item, flight=flight, ghost=ghost, recent=None))
        return state._replace(
            events=less(state.events, "age"),
            ops=tuple(op._replace(old=True) for op in state.ops),
            workers=tuple(workers),
            redis=state.redis._replace(fence=0),
        )

    # Redis.

    def apply(self, redis, flight):
        if flight.epoch != redis.real or redis.epoch != redis.real:
            return redis, flight._replace(applied=True, accepted=False)
        item = flight.item
        writes = flight.flush or (item is not None and item.kind is not Kind.FILL)
        seq = redis.seq + writes
        holds = tuple(holder for holder in redis.holds if holder not in flight.lifts)
        redis = redis._replace(seq=seq, holds=holds)
        if flight.flush and self.has("a Flush sets the table's fence"):
            redis = redis._replace(table=seq)
        if item is None:
            return redis, flight._replace(applied=True, seq=seq)
        word = "Fill" if item.kind is Kind.FILL else "Store"
        alone = (
            item.date >= redis.floor
            and not flight.late
            and (redis.fence <= item.date or not self.has(f"a {word} yields to a newer fence of its key"))
            and (redis.table <= item.date or not self.has(f"a {word} yields to a newer fence of its table"))
        )
        held = holds and self.has("a block refuses Fills" if word == "Fill" else "a block makes others' Stores evict")
        newest = alone and not held
        if item.kind is Kind.EVICT or (item.kind is Kind.STORE and not newest):
            redis = redis._replace(a=0, b=0)
        elif newest and not item.partial:
            redis = redis._replace(a=item.a, b=item.b)
        elif newest:
            if redis.a:
                redis = redis._replace(a=item.a)
            elif not self.has("a partial value is written to a hash that is there"):
                redis = redis._replace(a=item.a, b=0)
        if item.kind is not Kind.FILL and self.has("a write sets the key's fence"):
            redis = redis._replace(fence=seq)
        return redis, flight._replace(applied=True, seq=seq, newest=alone)


def change(item):
    value = None
    if item.kind is not Kind.EVICT:
        value = {b"a": b"%d" % item.a} if item.partial else {b"a": b"%d" % item.a, b"b": b"%d" % item.b}
    return Change(item.kind, _RULE, b"t:1", value, item.date, item.began, item.ended, partial=item.partial)


def uncover(merged, old):
    value = merged.value or {}
    return Item(
        merged.kind,
        merged.date,
        merged.began,
        merged.ended,
        int(value.get(b"a", 0)),
        int(value.get(b"b", 0)),
        merged.partial,
        old,
    )


def put_worker(state, w, worker):
    return state._replace(workers=(worker, state.workers[1]) if w == 0 else (state.workers[0], worker))


def less(events, event):
    left = list(events)
    left.remove(event)
    return tuple(left)


def settled(state):
    """Nothing is left to happen; events that may not have happened do not count."""
    return not (state.todo or state.ops) and all(
        not (w.item or w.flush or w.flight or w.scan or w.ghost or w.lifts) and w.epoch == state.redis.real
        for w in state.workers
    )


def items(worker):
    item, flight, ghost = worker.item, worker.flight, worker.ghost
    found = [item] if item else []
    if flight and flight.item:
        found.append(flight.item)
    if ghost and ghost.item:
        found.append(ghost.item)
    return found


def clock(state, *more):
    instants = [0, *more]
    instants += [op.began for op in state.ops]
    for worker in state.workers:
        for item in items(worker):
            instants += (item.began, item.ended)
        if worker.recent:
            instants.append(worker.recent[0])
    return max(instants) + 1


def versions(state):
    found = [state.a, state.b, state.told_a, state.told_b, state.redis.a, state.redis.b]
    if state.saved:
        found += (state.saved.a, state.saved.b)
    found += [x for op in state.ops for x in (op.a, op.b)]
    found += [x for worker in state.workers for item in items(worker) for x in (item.a, item.b)]
    return found


def ranks(numbers):
    return {number: rank for rank, number in enumerate(sorted(numbers))}


def canonical(state):
    """The same state with every number replaced by its rank: only order counts. 0 stays 0, as it says `none`."""
    instants, dates = {0}, {0}
    for op in state.ops:
        instants.add(op.began)
        dates.add(op.date)
    for w in state.workers:
        dates.add(w.date)
        for item in items(w):
            instants.update((item.began, item.ended))
            dates.add(item.date)
        for flight in (w.flight, w.ghost):
            if flight:
                dates.add(flight.seq)
        if w.recent:
            instants.add(w.recent[0])
            dates.update(w.recent[1:])
    for redis in (state.redis, state.saved):
        if redis:
            dates.update((redis.fence, redis.table, redis.seq, redis.floor))
    t, v = ranks(instants), ranks({0, *versions(state)})
    # Where the counter may come to lie below a date, the distance between the two counts as well.
    ahead = state.saved is None and state.redis.seq == max(dates)
    d = ranks(dates) if ahead else {date: date for date in dates}

    if same(t) and same(v) and same(d):
        return state._replace(ops=tuple(sorted(state.ops)))

    # By position: this is most of what a search does.
    def redo_item(x):
        return x and Item(x.kind, d[x.date], t[x.began], t[x.ended], v[x.a], v[x.b], x.partial, x.old)

    def redo_flight(x):
        return x and Flight(
            redo_item(x.item), x.flush, x.epoch, x.applied, d[x.seq], x.newest, x.late, x.accepted, x.lifts
        )

    def redo_redis(x):
        return x and Redis(v[x.a], v[x.b], d[x.fence], d[x.table], d[x.seq], d[x.floor], x.epoch, x.real, x.holds)

    workers = tuple(
        Worker(
            d[w.date],
            w.epoch,
            redo_item(w.item),
            w.flush,
            redo_flight(w.flight),
            w.scan,
            redo_flight(w.ghost),
            w.recent and (t[w.recent[0]], d[w.recent[1]], d[w.recent[2]]),
            w.lifts,
        )
        for w in state.workers
    )
    ops = [
        Op(x.kind, x.worker, x.effective, d[x.date], t[x.began], v[x.a], v[x.b], x.old, x.holder, x.blocked)
        for x in state.ops
    ]
    return State(
        state.todo,
        state.events,
        tuple(sorted(ops)),
        workers,
        redo_redis(state.redis),
        redo_redis(state.saved),
        v[state.a],
        v[state.b],
        v[state.told_a],
        v[state.told_b],
    )


def same(numbers):
    return all(number == rank for number, rank in numbers.items())


def trace(node):
    states = []
    while node is not None:
        states.append(node[0])
        node = node[1]
    return states[::-1]


def programs(length, kinds=KINDS):
    """Every choice of operations, up to which worker is called the first."""
    choices = [(kind, w) for kind in kinds for w in (0, 1)]
    for ops in combinations_with_replacement(choices, length):
        other = [(kind, 1 - w) for kind, w in ops]
        if sorted(ops) <= sorted(other) and any(kind != "fill" for kind, _ in ops):
            yield ops


def describe(states):
    """What changed from state to state, for a failing test's message."""
    lines = []
    for before, after in pairwise(states):
        changed = [
            f"{name}: {getattr(before, name)} -> {getattr(after, name)}"
            for name in State._fields
            if getattr(before, name) != getattr(after, name)
        ]
        lines.append("; ".join(changed))
    return "\n".join(lines)
