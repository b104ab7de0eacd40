"""Goes through every interleaving that the model of the ordering rules allows, and tells the first that ends badly.

Most moves of a worker are *unseen*: it begins a statement, answers one, takes a batch, hears of one, loses its
connection. A move is *seen* when PostgreSQL or Redis does something. An unseen move changes nothing that the other
worker, PostgreSQL or Redis looks at, and nothing that they do changes the move. So it makes no difference if it is put
off, past whatever else happens, until just before the same worker's next seen move: only such runs are looked at. Of
these it is enough to look at those where the last unseen move is one that the seen move depends on (another could be
put off further), and where a statement begins just before something that it may be compared with: the beginning or
answer of another one, news of the counter, its own effect.

States that `model_canonical` takes for one are looked at once. ``whole`` searches do without all of this.
"""

import gc
from contextlib import contextmanager
from functools import lru_cache
from itertools import combinations_with_replacement, pairwise

from tests.consistency.model import KINDS
from tests.consistency.model_canonical import Canonical, Plain
from tests.consistency.model_states import CURRENT, Redis, State, Worker, idle, less, put_worker, restored, stale


class Search:
    """``ops``: which operations there may be, each of a worker (None: of either) and of one of some kinds.

    ``states`` counts the states visited, ``steps`` those found to follow one.
    """

    def __init__(self, model, ops, events=(), *, whole=False):
        self.model = model
        self.whole = whole
        self.ops = tuple(sorted(ops, key=str))
        self.events = tuple(sorted(events))
        self.symmetric = all(of is None for of, _ in ops)
        form = Plain if whole else Canonical
        self.canonical = form(model, self.events, symmetric=self.symmetric)
        self.promised = model.before_commit and not {"restore", "hurry"} & {*events}
        # Found again and again, by states in which the worker is the same: the other one and Redis do not matter.
        self.unseen = lru_cache(1 << 14)(self.unseen_ways)
        self.grown_old = lru_cache(1 << 14)(self.ways_to_grow_old)
        self.seen = {}
        self.steps = 0

    @property
    def states(self):
        return len(self.seen)

    def starts(self):
        """At first the key is in Redis, or is not."""
        workers = (Worker(6), Worker(6))
        for before in (Redis(CURRENT, CURRENT), Redis()):
            saved = before if "restore" in self.events else None
            yield State(self.ops, self.events, workers, before._replace(seq=6), saved)

    def stale(self):
        """The first sequence of states found to end with what must not be, or None."""
        with no_collector():
            seen = self.seen = {self.canonical(start): None for start in self.starts()}
            stack = list(seen)
            while stack:
                state = stack.pop()
                if self.wrong(state):
                    return self.trace(state)
                for following in self.moves(state):
                    self.steps += 1
                    following = self.canonical(following)
                    if following not in seen:
                        seen[following] = state
                        stack.append(following)
        return None

    def wrong(self, state):
        """A stale value at rest (or, if that is promised, at any instant), or a block that is never released."""
        if self.promised and stale(state):
            return True
        if not stale(state) and not any(worker.blocks for worker in state.workers):
            return False
        return all(self.rests(state, w) for w in (0, 1))

    def rests(self, state, w):
        """Whether the worker can come to rest with nothing that others would see."""
        worker = state.workers[w]
        if worker.epoch != state.redis.real:
            return False
        return idle(worker) if self.whole else self.unseen(self.whose(w), worker, state.todo, state.events)[1]

    def moves(self, state):
        """Every state that may come next."""
        for w in (0, 1):
            if self.whole:
                for _, worker, todo, events in self.model.own_moves(w, state.workers[w], state.todo, state.events):
                    yield put_worker(State(todo, events, state.workers, state.redis, state.saved), w, worker)
                yield from self.model.seen_moves(state, w)
                continue
            for worker, todo, events, last in self.unseen(self.whose(w), state.workers[w], state.todo, state.events)[0]:
                before = put_worker(State(todo, events, state.workers, state.redis, state.saved), w, worker)
                yield from self.model.seen_moves(before, w, last)
        if "restore" in state.events:
            yield restored(state)
        if "age" in state.events:
            yield from self.age(state)

    def age(self, state):
        """So much time passes that every fence is gone, and everything under way is older than that."""
        redis, events = state.redis._replace(fence=0), less(state.events, "age")
        for first, todo, left in self.grown_old(self.whose(0), state.workers[0], state.todo, events):
            for second, todo_then, left_then in self.grown_old(self.whose(1), state.workers[1], todo, left):
                yield State(todo_then, left_then, (first, second), redis, state.saved)

    def whose(self, w):
        """0, where it makes no difference which worker it is."""
        return 0 if self.symmetric else w

    def unseen_ways(self, w, worker, todo, events):
        """Where the worker can get unseen and then do something that is seen: itself, ``todo``, ``events``, and its
        last move. And whether it can come to rest unseen.
        """
        found = self.reached(w, worker, todo, events)
        return [way for way in found if self.leads_on(*way)], any(idle(way[0]) for way in found)

    def ways_to_grow_old(self, w, worker, todo, events):
        ways = [(worker, todo, events, "")] if self.whole else self.reached(w, worker, todo, events)
        return list(dict.fromkeys((self.model.aged(way[0]), way[1], way[2]) for way in ways))

    def reached(self, w, worker, todo, events):
        """Everywhere the worker can get unseen."""
        start = worker, todo, events, ""
        found, stack = {start: None}, [start]
        while stack:
            *here, last = stack.pop()
            for name, *there in self.model.own_moves(w, *here):
                if last == "begin" and name not in ("begin", "confirm", "answer"):
                    continue
                way = (*there, name)
                if way not in found:
                    found[way] = None
                    stack.append(way)
        return list(found)

    def leads_on(self, worker, todo, events, last):
        """Whether something seen may depend on what the worker did ``last``; this only saves time."""
        batch = worker.in_flight
        return (
            last in ("", "begin")
            or (last == "take" and batch is not None)
            or (last == "lose" and worker.given_up is not None)
            or (batch is None and worker.scan)
            or not {"heartbeat", "restore"}.isdisjoint(self.events)
            or bool(self.model.without)
        )

    def trace(self, state):
        """The way there, without anything forgotten or renumbered."""
        path = []
        while state is not None:
            path.append(state)
            state = self.seen[state]
        choices, states = self.starts(), []
        for step in reversed(path):
            states.append(next(choice for choice in choices if self.canonical(choice) == step))
            choices = self.moves(states[-1])
        return states


@contextmanager
def no_collector():
    """There are millions of tuples and no cycle among them: to look for one takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def anything(length, kinds=KINDS):
    """Every program of up to so many operations."""
    return ((None, tuple(sorted(kinds))),) * length


def program(text):
    """`store0 fill1`: these operations, of these workers."""
    return tuple((int(word[-1]), (word[:-1],)) for word in text.split())


def programs(length, kinds=KINDS):
    """Every choice of operations, up to which worker is called the first."""
    choices = [(w, (kind,)) for kind in kinds for w in (0, 1)]
    for ops in combinations_with_replacement(choices, length):
        other = [(1 - w, kind) for w, kind in ops]
        if sorted(ops) <= sorted(other) and any(kind != ("fill",) for _, kind in ops):
            yield ops


def describe(states):
    """What changed from state to state, for a failing test's message."""
    names = ("todo", "events", "worker 0", "worker 1", "redis", "saved")
    parts = [(*state[:2], *state.workers, *state[3:]) for state in states]
    changes = [
        [f"{name}: {spare(new)}" for name, old, new in zip(names, before, after, strict=True) if old != new]
        for before, after in pairwise(parts)
    ]
    return "\n".join([f"at first {spare(states[0].redis)}", *("; ".join(changed) for changed in changes)])


def spare(value):
    """``value`` in words, without what is as it mostly is."""
    if not isinstance(value, tuple):
        return str(value)
    if not hasattr(value, "_fields"):
        return f"[{', '.join(spare(x) for x in value)}]"
    usual = getattr(value, "_field_defaults", {})
    named = zip(getattr(value, "_fields", ()), value, strict=True)
    told = (f"{name}={spare(x)}" for name, x in named if name not in usual or x != usual[name])
    return f"{type(value).__name__}({', '.join(told)})"
