"""Which states are as good as the same: what nothing will ask for is forgotten, and of numbers only order counts.

From two states taken for one the same must be reachable, in the same steps. `test_model` tries that: what the states
that follow a state are taken for must be what those are taken for that follow the state it is taken for itself.
"""

from functools import lru_cache

from cache.changes import Kind
from tests.consistency.model_states import (
    FOREVER,
    STALE,
    Item,
    Redis,
    State,
    dates,
    evicted,
    instants,
    released,
)

SPAN = 32
"""More dates than a worker knows."""


class Plain:
    """Every number by its rank among all of its sort; nothing is forgotten."""

    def __init__(self, model, events, *, symmetric):
        self.distances = distances_count(model, events)

    def __call__(self, state):
        redis = state.redis
        found = {0, *redis[2:6], *(seq for worker in state.workers for seq in dates(worker))}
        d = {x: x if self.distances else rank for rank, x in enumerate(sorted(found))} | {FOREVER: FOREVER}
        redis = redis._replace(fence=d[redis.fence], table=d[redis.table], seq=d[redis.seq], floor=d[redis.floor])
        workers = tuple(renumbered(worker, d) for worker in state.workers)
        return state._replace(workers=workers, redis=redis)


class Canonical:
    """What is forgotten besides, and why nothing asks for it, stands at each place. Of a state and its mirror image,
    where the workers change places, one is taken.
    """

    def __init__(self, model, events, *, symmetric):
        self.model = model
        self.distances = distances_count(model, events)
        self.symmetric = symmetric
        self.numbers = {}
        self.tidy = lru_cache(1 << 18)(self.tidied)
        self.ranked = lru_cache(1 << 18)(self.ranks)
        self.cut = lru_cache(1 << 18)(self.cut_up)

    def __call__(self, state):
        more, loses, redis = bool(state.todo), "lost" in state.events, state.redis
        restores = "restore" in state.events or any(worker.epoch != redis.real for worker in state.workers)
        first = self.tidy(state.workers[0], more, loses, restores, redis.real)
        second = self.tidy(state.workers[1], more, loses, restores, redis.real)
        # What a restored Redis counts means nothing: its counter will begin above all dates.
        counted = redis[2:6] if redis.epoch == redis.real or self.distances else (0, 0, 0, 0)
        (fence, table, seq, floor), cuts = self.ranked(counted, first.dates, second.dates)
        epoch, real = (redis.epoch, redis.real) if restores else (0, 0)
        a = STALE if redis.b == STALE else redis.a
        redis = Redis(a, redis.b, fence, table, seq, floor, epoch, real)
        (number, worker), (other_number, other) = self.cut(first, cuts), self.cut(second, cuts)
        workers = (other, worker) if self.symmetric and other_number < number else (worker, other)
        return State(state.todo, state.events, workers, redis, state.saved)

    def tidied(self, worker, more, loses, restores, real):
        """The worker without what nothing will ask for.

        ``more``: statements may still begin. ``loses``: a connection may be lost. ``restores``: not every worker has
        joined the last epoch, of the ``real`` Redis, that there will be.
        """
        if worker.given_up and worker.given_up.epoch != real:
            # It will be refused.
            worker = worker._replace(given_up=None)
        if not restores:
            worker = in_one_epoch(worker)
        elif worker.epoch != real and not loses and self.model.has("a new epoch flushes"):
            worker = left_behind(worker)
        return Tidy(self.forget(worker, more, loses, restores))

    def ranks(self, fences, known, others):
        """Redis's fences and its counter by rank, and where these lie among ``known`` dates and ``others``.

        A fence counts as the oldest date in use that it lets pass, as 0 if it lets all of them pass.
        """
        if self.distances:
            return fences, None
        live = known | others
        fence, table, seq, floor = fences

        def lowest(fence):
            passed = [seq for seq in live if seq >= fence]
            return 0 if len(passed) == len(live) else min((*passed, seq))

        lows = lowest(fence), lowest(table), seq, lowest(floor)
        cuts = tuple(sorted({*lows} - {0}))
        place = {cut: SPAN * i for i, cut in enumerate((0, *cuts))}
        return tuple(place[low] for low in lows), cuts

    def cut_up(self, tidy, cuts):
        """A number for the worker, and the worker with its dates by rank between ``cuts``, its instants by rank."""
        worker = renumbered(tidy.worker, places(tidy, cuts))
        return self.numbers.setdefault(worker, len(self.numbers)), worker

    def forget(self, worker, more, loses, restores):
        ops = tuple(forget_op(op) for op in worker.ops)
        arriving = more or any(not {"flush", "undone"}.issuperset(op.kinds) for op in ops)
        # A batch that is heard of may give something a new date.
        later = arriving or worker.item is not None
        item, batch = worker.item, worker.in_flight
        if item is not None:
            item = forget_item(item, merges=arriving or batch is not None, redates=arriving)
        if batch is not None:
            batch = self.forget_batch(batch, later, loses, loses or restores)
        # New statements get the worker's date.
        dated = more or (arriving and not self.model.has("a statement is dated when it is forwarded"))
        seq = worker.seq if dated else 0
        if batch is not None and batch.applied and not batch.item and (not dated or batch.seq <= seq):
            batch = batch._replace(seq=0)
        given_up = worker.given_up
        if given_up is not None and given_up.item is not None:
            # The worker does not hear of it.
            given_up = given_up._replace(
                item=forget_item(given_up.item._replace(old=False), merges=False, redates=False)
            )
        recent = worker.recent
        if recent is not None:
            known = {op.seq for op in ops} | {seq}
            if not any(recent[1] <= x < recent[2] for x in known - {0}):
                recent = None
        worker = worker._replace(seq=seq, ops=ops, item=item, in_flight=batch, given_up=given_up, recent=recent)
        return renamed(worker) if worker.releases or worker.blocks or released(batch) or released(given_up) else worker

    def forget_batch(self, batch, later, loses, back):
        """``back``: the batch may have to be sent again, in whatever shape."""
        item = batch.item
        if batch.applied and batch.accepted:
            redates = later and item is not None and item.kind is not Kind.FILL and not item.old
            redates = redates and (
                batch.newest or not self.model.has("a new date needs that no other write came between")
            )
            if item is not None:
                # Of a read nothing comes any more, of a write at most an EVICT.
                kept = item.kind is not Kind.FILL and (redates or loses)
                item = forget_item(evicted(item), merges=later, redates=later) if kept else None
            releases = batch.releases if loses else ()
            newest = batch.newest and redates
            return batch._replace(item=item, newest=newest, late=False, epoch=0, releases=releases)
        if item is None:
            return batch
        merges = later and (back or (item.kind is not Kind.FILL and not item.old))
        return batch._replace(item=forget_item(item, merges=merges, redates=later))


class Tidy:
    """A worker without what nothing will ask for, and the dates it still has. Compared by identity, which is quick."""

    __slots__ = ("dates", "worker")

    def __init__(self, worker):
        self.worker = worker
        self.dates = frozenset(dates(worker) - {0})


def distances_count(model, events):
    """Whether the counter may come to lie below a date: then it matters how far."""
    return "restore" in events and not model.has("a new epoch counts from above all dates")


def forget_item(item, *, merges, redates):
    """``merges``: something may yet be merged with it, or be ordered after it. ``redates``: something may be given
    its fence's value as a date. A removal is not refused, so it needs its own date for no more than that."""
    item = forget_value(item)
    seq = 0 if item.kind is Kind.EVICT and not redates else item.seq
    sent_ns = item.sent_ns if merges else 0
    settled_ns = item.settled_ns if merges and item.kind is not Kind.FILL else 0
    return item._replace(seq=seq, sent_ns=sent_ns, settled_ns=settled_ns)


def in_one_epoch(worker):
    """Every worker has joined the last epoch: its number does not count any more."""
    batch, given_up = worker.in_flight, worker.given_up
    batch = batch and batch._replace(epoch=0)
    return worker._replace(epoch=0, in_flight=batch, given_up=given_up and given_up._replace(epoch=0))


def left_behind(worker):
    """Without what it will throw away when it joins the new epoch, and the batch that this one will refuse."""
    item, batch = worker.item, worker.in_flight
    if item is not None and not item.old:
        # That something waits may still make a batch.
        item = Item(Kind.EVICT, 0, 0, 0)
    if batch and not (batch.applied and batch.accepted):
        batch = batch._replace(item=None, flush=False)
    return worker._replace(item=item, in_flight=batch, recent=None)


def forget_op(op):
    """What its answer will not need."""
    kinds = set(op.kinds)
    if kinds <= {"flush", "undone"}:
        return op._replace(seq=0, sent_ns=0, a=0, b=0, old=False)
    if kinds <= {"flush", "undone", "unknown"}:
        return op._replace(a=0, b=0)
    if kinds == {"partial"}:
        return op._replace(b=0)
    return forget_value(op)


def forget_value(record):
    """A hash with an old `b` stays wrong, whatever its `a`."""
    return record._replace(a=STALE) if record.b == STALE else record


def renamed(worker):
    """Blocks that are named in the same places are released together: they count as one. Those that are not in Redis
    any more only keep a batch from being empty."""
    places = [worker.releases, released(worker.in_flight), released(worker.given_up)]
    names = {
        name: sum(1 << i for i, releases in enumerate(places) if name in releases)
        for name in {name for releases in places for name in releases}
        if name in worker.blocks
    }

    def redo(releases):
        return tuple(sorted({names[name] for name in releases if name in names})) or ((0,) if releases else ())

    batch, given_up = worker.in_flight, worker.given_up
    return worker._replace(
        releases=redo(worker.releases),
        blocks=tuple(sorted(set(names.values()))),
        in_flight=batch and batch._replace(releases=redo(batch.releases)),
        given_up=given_up and given_up._replace(releases=redo(given_up.releases)),
    )


def places(tidy, cuts):
    """Each of the worker's dates by where it lies between ``cuts``, and by rank there."""
    if cuts is None:
        return {seq: seq for seq in (0, *tidy.dates, FOREVER)}
    found = {0: 0, FOREVER: FOREVER}
    below, rank = -1, 0
    for seq in sorted(tidy.dates):
        passed = sum(cut <= seq for cut in cuts)
        if passed != below:
            # Whether it is the counter's value itself counts; whether it is that of a fence does not.
            rank = int(passed == 0 or (passed == len(cuts) and seq != cuts[-1]))
            below = passed
        found[seq] = SPAN * passed + rank
        rank += 1
    return found


def renumbered(worker, d):
    """The worker with ``d`` of each of its dates, and its instants by rank."""
    t = {x: rank for rank, x in enumerate(sorted(instants(worker)))}

    def item(x):
        return x and Item(x.kind, d[x.seq], t[x.sent_ns], t[x.settled_ns], x.a, x.b, x.partial, x.old)

    def batch(x):
        return x and x._replace(item=item(x.item), seq=d[x.seq])

    recent = worker.recent
    return worker._replace(
        seq=d[worker.seq],
        ops=tuple(sorted(op._replace(seq=d[op.seq], sent_ns=t[op.sent_ns]) for op in worker.ops)),
        item=item(worker.item),
        in_flight=batch(worker.in_flight),
        given_up=batch(worker.given_up),
        recent=recent and (t[recent[0]], d[recent[1]], d[recent[2]]),
    )
