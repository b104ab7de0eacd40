"""The script that Redis runs decides as the model does: random sequences of batches of one key, step by step."""

import random
import time

import pytest

from cache.changes import Kind
from cache.delivery import scripts
from tests.consistency.model import Batch, Item, Model, Redis

LIFE = 60_000
LABEL = "rule"
KEY = "t:1"
STEPS = 45


class Script:
    """The real Redis, spoken to as a worker does; counter values are told as distances from the first."""

    def __init__(self, client):
        self.client = client
        self._apply = client.register_script(scripts.APPLY.text)
        self._block = client.register_script(scripts.BLOCK.text)
        self._scanned = client.register_script(scripts.SCANNED.text)
        self._blocked = self._looked_for = ""
        client.flushdb()
        joined = client.eval(scripts.JOIN.text, 0, "w", "t", 0, 0, "r", 30_000, LIFE, LABEL, "definition")
        self.first = self.seen = joined[1]

    def seq(self, seq):
        return self.first + seq - 1

    def apply(self, batch):
        """The outcome's letter, if there was a change."""
        item = batch.item
        writes = batch.flush or (item is not None and item.kind is not Kind.FILL)
        sent = int(time.time() * 1000) - (LIFE // 4 + 1000 if batch.late else 0)
        keyed = item is not None or any(name > 0 for name in batch.releases)
        releases = [fact for name in batch.releases for fact in (1 if name > 0 else -1, f"h{abs(name)}")]
        facts = ["w", "t", self.seen, sent, 0, int(writes), LIFE, int(item is not None), 1]
        facts += [len(batch.releases), int(batch.flush), LABEL, *releases]
        if batch.flush:
            facts += [1, 0]
        if item is not None:
            facts += self._change(item)
        reply = self._apply([KEY] if keyed else [], facts)
        assert reply[0] == scripts.DONE
        self.seen = reply[1]
        if batch.flush and reply[5] != bytes((scripts.SCAN,)):
            assert not self.client.exists(KEY), "there was a key to look for"
        return reply[4].decode()

    def _change(self, item):
        value = ["a", item.a] if item.partial else ["a", item.a, "b", item.b]
        head = [1, self.seq(item.seq)]
        if item.kind is Kind.EVICT:
            return ["E", *head, 0]
        if item.partial:
            return ["p", *head, 1, *value, 0]
        return ["f" if item.kind is Kind.FILL else "s", *head, 0, 2, *value]

    def block(self, name):
        keys, rules = ([KEY], []) if name > 0 else ([], [LABEL, f"h{-name}"])
        names = [f"h{name}"] if name > 0 else []
        assert self._block(keys, ["w", "t", self.seen, LIFE, len(rules) // 2, *rules, *names]) == [scripts.DONE]

        if name < 0:
            self._blocked = f"h{-name}"

    def scan(self):
        self.client.delete(KEY)
        self._looked_for = self._blocked

    def scanned(self):
        """The scan is over; much may have happened since it saw the key."""
        if self._looked_for:
            self._scanned([], [LABEL, self._looked_for])

    def silence(self):
        self.client.hincrby(scripts.STATE, "time", -LIFE)

    def look(self):
        """What is in Redis, in the model's words."""
        known = self.client.hget(scripts.STATE, f"n:{LABEL}") or b""
        assert not (known.endswith(b" none") and self.client.exists(KEY))
        value = {name: int(text) for name, text in self.client.hgetall(KEY).items()}
        hashes = sorted(scripts.FENCES, key=lambda name: -int(self.client.hget(name, "rowtap:generation")))
        found = [fence for name in hashes if (fence := self.client.hget(name, KEY)) is not None]
        key, key_blocks = self._fence(found[0] if found else None)
        table, table_blocks = self._fence(self.client.hget(scripts.STATE, f"t:{LABEL}"))
        return Redis(
            value.get(b"a", 0),
            value.get(b"b", 0),
            key,
            table,
            int(self.client.hget(scripts.STATE, "seq")) - self.first + 1,
            int(self.client.hget(scripts.STATE, "floor")) - self.first + 1,
            blocks=tuple(sorted([-name for name in table_blocks] + key_blocks)),
        )

    def _fence(self, text):
        seq, *blocks = (text or b"0").split()
        number = int(seq) - self.first + 1 if int(seq) else 0
        return number, [int(block.partition(b"@h")[2]) for block in blocks]


def random_item(dice, seq, version):
    kind = dice.choice([Kind.FILL, Kind.FILL, Kind.STORE, Kind.STORE, Kind.EVICT])
    seq = seq if dice.random() < 0.5 else dice.randint(0, seq)
    if kind is Kind.EVICT:
        return Item(kind, seq, 1, 1)
    if kind is Kind.STORE and dice.random() < 0.4:
        return Item(kind, seq, 1, 1, version, 0, partial=True)
    return Item(kind, seq, 1, 1, version, version)


def letter(item, before, after, *, alone):
    """The outcome the model came to."""
    taken = (after.a, after.b) != (0, 0) and alone and not after.blocks and item.kind is not Kind.EVICT
    if item.kind is Kind.FILL:
        return "F" if taken else "R"
    if taken and (not item.partial or before.a):
        return "S"
    return "E" if alone else "O"


@pytest.mark.parametrize("seed", range(30))
def test_the_script_decides_as_the_model_does(redis_client, seed):
    dice = random.Random(seed)
    script, model = Script(redis_client), Model()
    state = Redis()
    barred, blocked = False, False
    for version in range(2, STEPS):
        step = dice.choice(
            ["batch"] * 6 + ["block", "block", "scan", "scanned", "scanned"] + ["silence"] * (seed % 10 == 0)
        )
        told = f"seed {seed}, step {version}: {step}"
        if step == "block":
            name = version if dice.random() < 0.4 else -version
            script.block(name)
            state = state._replace(blocks=tuple(sorted((*state.blocks, name))))
            blocked = True
            if name > 0:
                state = state._replace(a=0, b=0)
        elif step == "scanned":
            script.scanned()
        elif step == "scan":
            script.scan()
            state = state._replace(a=0, b=0)
        else:
            item = random_item(dice, state.seq, version) if dice.random() < 0.9 else None
            releases = tuple(name for name in state.blocks if dice.random() < 0.5)
            batch = Batch(item, dice.random() < 0.1, 1, late=dice.random() < 0.05, releases=releases)
            told += f" {batch}"
            before = state
            if step == "silence":
                # Fences may be gone: what was dated before counts for nothing, and where a block may have been
                # among them, nothing is accepted any more.
                script.silence()
                writes = batch.flush or (item is not None and item.kind is not Kind.FILL)
                state = state._replace(floor=state.seq + 1, seq=state.seq + (not writes))
                barred = barred or blocked
            state, applied = model.apply(state, batch._replace(late=batch.late or barred))
            outcome = script.apply(batch)
            if item is not None:
                assert outcome == letter(item, before, state, alone=applied.newest), told
        assert script.look() == state, told
