"""The ordering rules on one key, small enough to look at every interleaving of a few operations by two workers.

A row has two fields, `a` and `b`. The backlog's merging is the real one (`cache.merging`); the rest of it and the
script that Redis runs (`cache/delivery/lua/apply.lua`) are written down here once more, in their simplest form. Each
rule can be left out by name (`RULES`). `model_search` goes through what this allows, `model_canonical` says which
states need not be told apart.

Operations: `store` writes both fields and shows what it wrote, `partial` writes `a` and shows that alone, `unknown`
writes both and shows nothing, `flush` does so without naming the key, `fill` reads, `undone` is rolled back.
An operation is forwarded, takes effect in PostgreSQL, and is answered; a worker takes a batch, Redis applies it, the
worker hears of it. Anything may happen between any two of these. An operation's kind is decided only when something
depends on it: until then an `Op` has every kind that it may still turn out to be.

Events: `lost` breaks a worker's connection while a batch is in flight; `age` lets so much time pass that all fences
are gone; `restore` puts back what Redis held long before; `heartbeat` tells a worker the counter, as a batch of other
keys would; `hurry` forwards a write that should have waited for its block.

With `before_commit` each write waits for its block. Then Redis must never show a value older than a write that was
answered, at any instant (not after `restore` or `hurry`, for which that cannot be promised). A write may be answered as
soon as it has taken effect, so Redis must never hold anything but the last value.
"""

from cache.changes import Kind
from cache.merging import merge
from tests.consistency.model_states import (
    CURRENT,
    FOREVER,
    STALE,
    Batch,
    Item,
    Op,
    Redis,
    change,
    clock,
    dates,
    evicted,
    less,
    overwritten,
    put_op,
    put_worker,
    released,
    uncover,
)

__all__ = ["BLOCKED_KINDS", "BLOCK_RULES", "EVENTS", "KINDS", "RULES", "Batch", "Item", "Model", "Redis"]

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
    "a new date needs that no other write came between",
    "a batch of unknown outcome is sent again",
    "what is too old is evicted or dropped",
    "a batch under way for too long is refused",
    "a new epoch counts from above all dates",
    "a new epoch flushes",
)
BLOCK_RULES = (
    "a write waits for its block",
    "a block removes the key",
    "a Flush's block looks for keys after it is set",
    "a block refuses Fills",
    "a block makes others' Stores evict",
    "a block is released with the outcome",
)
KINDS = ("store", "partial", "unknown", "flush", "fill")
BLOCKED_KINDS = (*KINDS, "undone")
EFFECTS = (("store", "unknown", "flush"), ("partial",), ("fill",), ("undone",))
"""Kinds that do the same in PostgreSQL."""
EVENTS = ("lost", "age", "restore", "heartbeat", "hurry")

OTHERS = -1
"""The name of any block that is not the worker's."""

_KIND = {"store": Kind.STORE, "partial": Kind.STORE, "unknown": Kind.EVICT, "fill": Kind.FILL}


class Model:
    """The rules, without those in ``without``."""

    def __init__(self, without=(), *, before_commit=False):
        unknown = set(without) - {*RULES, *BLOCK_RULES}
        assert not unknown, unknown
        self.without = frozenset(without)
        self.before_commit = before_commit

    def has(self, rule):
        return rule not in self.without

    # What only the worker itself can see.

    def own_moves(self, w, worker, todo, events):
        """What worker ``w`` can do unseen: the move's name, and itself, ``todo`` and ``events`` after that."""
        for i, (of, kinds) in enumerate(todo):
            if of in (w, None) and (i == 0 or todo[i - 1] != (of, kinds)):
                op = Op(kinds, worker.seq, clock(worker), blocked=0 if self.before_commit else 2)
                yield "begin", worker._replace(ops=(*worker.ops, op)), todo[:i] + todo[i + 1 :], events
        for i, op in enumerate(worker.ops):
            if op.effective and not self.shown(op):
                for kind in op.kinds:
                    yield "answer", self.answer(worker, i, kind), todo, events
        batch = worker.in_flight
        if batch is None:
            if (worker.item or worker.releases or worker.flush) and not self.looks_early(worker):
                yield "take", self.take(worker), todo, events
            return
        if batch.applied and batch.accepted:
            yield "confirm", self.confirm(worker), todo, events
        if "lost" in events:
            back = self.put_back(worker, unknown=True)
            yield "lose", back, todo, less(events, "lost")
            if not batch.applied:
                yield "lose", back._replace(given_up=batch), todo, less(events, "lost")

    def shown(self, op):
        """Whether its answer changes Redis."""
        return op.block_set and not self.has("a block is released with the outcome")

    def looks_early(self, worker):
        """Whether taking its batch removes keys."""
        return worker.flush and not self.has("a Flush looks for keys after its fence is set")

    def answer(self, worker, i, kind):
        op = worker.ops[i]
        settled_ns = clock(worker)
        seq = op.seq if self.has("a statement is dated when it is forwarded") else worker.seq
        worker = self.release(worker._replace(ops=worker.ops[:i] + worker.ops[i + 1 :]), op)
        if kind == "undone":
            return worker
        if kind == "flush":
            return worker._replace(flush=True, item=None)
        if worker.flush:
            return worker
        a = 0 if kind == "unknown" else op.a
        b = 0 if kind in ("unknown", "partial") else op.b
        item = Item(_KIND[kind], seq, op.sent_ns, settled_ns, a, b, partial=kind == "partial", old=op.old)
        return worker._replace(item=self.merge(worker.item, self.redate(item, worker.recent)))

    def release(self, worker, op):
        """The outcome is known: the block goes with the batch that the outcome goes with."""
        if not self.before_commit or op.blocked == 0 or op.kinds == ("fill",) or self.shown(op):
            return worker
        name = max((0, *worker.releases, *worker.blocks, *released(worker.in_flight), *released(worker.given_up))) + 1
        blocks = (*worker.blocks, name) if op.block_set else worker.blocks
        return worker._replace(releases=(*worker.releases, name), blocks=blocks)

    def redate(self, item, recent):
        if recent is None:
            return item
        settled_ns, seq, fence = recent
        later = item.sent_ns > settled_ns or not self.has("a new date needs a write that began later")
        return item._replace(seq=fence) if later and seq <= item.seq < fence else item

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
                return item._replace(kind=Kind.STORE, settled_ns=waiting.settled_ns, old=old)
        elif not reads and not over_fill:
            overlap = item.sent_ns <= waiting.settled_ns
            if overlap and not self.has("overlapping writes evict"):
                return item._replace(old=old)
            if not overlap and not self.has("a write ordered after another replaces it"):
                return waiting
        result = uncover(merge(change(waiting), change(item)), old)
        if reads and not over_fill and (result.seq, result.sent_ns) == (item.seq, item.sent_ns):
            return self.in_place(result, item)
        combined = result.kind is Kind.STORE and item.partial and not result.partial
        if combined and not self.has("combined fields have the older date"):
            result = result._replace(seq=max(waiting.seq, item.seq))
        return result

    def in_place(self, result, fill):
        """A Fill took a write's place."""
        result = result._replace(old=fill.old)
        if not self.has("a Fill in a write's place sets the fence"):
            result = result._replace(kind=Kind.FILL, settled_ns=fill.settled_ns)
        if not self.has("a Fill in a write's place has the Fill's date"):
            result = result._replace(seq=FOREVER)
        return result

    def take(self, worker):
        item = worker.item
        if item is not None and item.old and self.has("what is too old is evicted or dropped"):
            item = None if item.kind is Kind.FILL else evicted(item)
        batch = None
        if item is not None or worker.flush or worker.releases:
            batch = Batch(item, worker.flush, worker.epoch, releases=worker.releases)
        return worker._replace(item=None, flush=False, releases=(), in_flight=batch)

    def confirm(self, worker):
        batch = worker.in_flight
        worker = worker._replace(in_flight=None, seq=max(worker.seq, batch.seq))
        if batch.flush and self.has("a Flush looks for keys after its fence is set"):
            worker = worker._replace(scan=True)
        item = batch.item
        newest = batch.newest or not self.has("a new date needs that no other write came between")
        if item is not None and item.kind is not Kind.FILL and not item.old and newest:
            recent = (item.settled_ns, item.seq, batch.seq)
            worker = worker._replace(recent=recent, item=worker.item and self.redate(worker.item, recent))
        return worker

    def put_back(self, worker, *, unknown):
        item, batch = worker.in_flight.item, worker.in_flight
        if item is not None and unknown:
            keep = self.has("a batch of unknown outcome is sent again") and item.kind is not Kind.FILL
            item = evicted(item) if keep else None
        flush = worker.flush or batch.flush
        if item is not None and worker.item is not None:
            item = self.merge(item, worker.item)
        elif item is None:
            item = worker.item
        if flush:
            item = None
        releases = tuple(sorted({*worker.releases, *batch.releases}))
        return worker._replace(item=item, flush=flush, in_flight=None, releases=releases)

    # What others can see, or what depends on them.

    def seen_moves(self, state, w, after=""):
        """What worker ``w`` can do with PostgreSQL and Redis: every state that may come next.

        ``after`` is its own move just before, if there was one: what does not depend on it has happened before it.
        """
        worker, redis = state.workers[w], state.redis
        yield from self.statement_moves(state, w, after)
        if worker.given_up is not None and after in ("", "lose"):
            redis, _, blocks = self.deliver(state, worker, worker.given_up)
            yield put_worker(state._replace(redis=redis), w, worker._replace(given_up=None, blocks=blocks))
            redis = state.redis
        batch = worker.in_flight
        if batch is not None:
            if not batch.applied and after in ("", "take"):
                redis, batch, blocks = self.deliver(state, worker, batch)
                yield put_worker(state._replace(redis=redis), w, worker._replace(in_flight=batch, blocks=blocks))
            elif not batch.accepted:
                yield self.join(state, w, self.put_back(worker, unknown=False))
            return
        if worker.epoch != redis.real:
            # A heartbeat tells it, if it has nothing to send.
            yield self.join(state, w, worker)
        elif "heartbeat" in state.events:
            told = worker._replace(seq=max(worker.seq, redis.seq))
            yield put_worker(state._replace(events=less(state.events, "heartbeat")), w, told)
        if worker.scan:
            yield put_worker(state._replace(redis=redis._replace(a=0, b=0)), w, worker._replace(scan=False))
        if self.looks_early(worker):
            yield put_worker(state._replace(redis=redis._replace(a=0, b=0)), w, self.take(worker))

    def statement_moves(self, state, w, after):
        worker = state.workers[w]
        for i, op in enumerate(worker.ops):
            if not after or (after == "begin" and i == len(worker.ops) - 1):
                if not op.effective:
                    yield from self.effect(state, w, i)
                if op.blocked < 2:
                    yield from self.block(state, w, i)
            if op.effective and self.shown(op):
                for kind in op.kinds:
                    yield put_worker(state, w, self.answer(worker, i, kind))

    def effect(self, state, w, i):
        worker = state.workers[w]
        op = worker.ops[i]
        for alike in EFFECTS:
            kinds = tuple(kind for kind in op.kinds if kind in alike)
            if not kinds:
                continue
            following = state
            if op.blocked < 2 and kinds != ("fill",) and self.has("a write waits for its block"):
                if "hurry" not in state.events:
                    continue
                following = state._replace(events=less(state.events, "hurry"))
            if kinds not in (("fill",), ("undone",)):
                following = overwritten(following, whole=kinds != ("partial",))
            now = op._replace(kinds=kinds, effective=True, a=CURRENT, b=CURRENT)
            if kinds == ("fill",):
                now = now._replace(blocked=2)
            yield put_op(following, w, i, now)

    def block(self, state, w, i):
        """Redis does as it is asked for a write that waits; this may also come too late to be waited for."""
        op, redis = state.workers[w].ops[i], state.redis
        if op.blocked == 1:
            yield put_op(state._replace(redis=redis._replace(a=0, b=0)), w, i, op._replace(blocked=2))
            return
        key = tuple(kind for kind in op.kinds if kind not in ("fill", "flush"))
        if key:
            removed = redis._replace(a=0, b=0) if self.has("a block removes the key") else redis
            yield put_op(state._replace(redis=removed), w, i, op._replace(kinds=key, blocked=2, block_set=True))
        if "flush" in op.kinds:
            blocked = 1 if self.has("a Flush's block looks for keys after it is set") else 2
            yield put_op(state, w, i, op._replace(kinds=("flush",), blocked=blocked, block_set=True))

    def join(self, state, w, worker):
        """A worker finds that Redis is not the one it knew, or that another worker did."""
        redis = state.redis
        if redis.epoch < redis.real:
            seq = redis.seq + 1
            if self.has("a new epoch counts from above all dates"):
                seq = max(redis.seq, *(seq for x in state.workers for seq in dates(x))) + 1
            redis = redis._replace(seq=seq, floor=seq, epoch=redis.real)
        flush = worker.flush or self.has("a new epoch flushes")
        item = None if flush else worker.item
        worker = worker._replace(seq=redis.seq, epoch=redis.epoch, flush=flush, item=item, recent=None)
        return put_worker(state._replace(redis=redis), w, worker)

    def aged(self, worker):
        """So much time passes that every statement and every batch under way is older than any fence."""
        late = self.has("a batch under way for too long is refused")
        batch, given_up = worker.in_flight, worker.given_up
        if batch is not None:
            batch = batch._replace(newest=False) if batch.applied else batch._replace(late=late)
        return worker._replace(
            ops=tuple(op._replace(old=True) for op in worker.ops),
            item=worker.item and worker.item._replace(old=True),
            in_flight=batch,
            given_up=given_up and given_up._replace(late=late),
            recent=None,
        )

    def deliver(self, state, worker, batch):
        """A batch of ``worker`` reaches Redis, which knows its blocks by their names, and whether others have any."""
        others = any(x.blocks for x in state.workers if x is not worker)
        others = others or any(op.block_set for x in state.workers for op in x.ops)
        redis = state.redis._replace(blocks=(*worker.blocks, OTHERS) if others else worker.blocks)
        redis, batch = self.apply(redis, batch)
        blocks = tuple(name for name in redis.blocks if name != OTHERS)
        return redis._replace(blocks=()), batch, blocks

    def apply(self, redis, batch):
        """What Redis does with a batch: itself, and the batch, afterwards."""
        if batch.epoch != redis.real or redis.epoch != redis.real:
            return redis, batch._replace(applied=True, accepted=False)
        item = batch.item
        writes = batch.flush or (item is not None and item.kind is not Kind.FILL)
        seq = redis.seq + writes
        redis = redis._replace(seq=seq, blocks=tuple(name for name in redis.blocks if name not in batch.releases))
        if batch.flush and self.has("a Flush sets the table's fence"):
            redis = redis._replace(table=seq)
        if item is None:
            return redis, batch._replace(applied=True, seq=seq)
        word = "Fill" if item.kind is Kind.FILL else "Store"
        alone = (
            item.seq >= redis.floor
            and not batch.late
            and (redis.fence <= item.seq or not self.has(f"a {word} yields to a newer fence of its key"))
            and (redis.table <= item.seq or not self.has(f"a {word} yields to a newer fence of its table"))
        )
        blocked = redis.blocks and self.has(
            "a block refuses Fills" if word == "Fill" else "a block makes others' Stores evict"
        )
        newest = alone and not blocked
        if item.kind is Kind.EVICT or (item.kind is Kind.STORE and not newest):
            redis = redis._replace(a=0, b=0)
        elif newest and not item.partial:
            redis = redis._replace(a=item.a, b=item.b)
        elif newest:
            if redis.a:
                redis = redis._replace(a=item.a)
            elif not self.has("a partial value is written to a hash that is there"):
                redis = redis._replace(a=item.a, b=STALE)
        if item.kind is not Kind.FILL and self.has("a write sets the key's fence"):
            redis = redis._replace(fence=seq)
        return redis, batch._replace(applied=True, seq=seq, newest=alone)
