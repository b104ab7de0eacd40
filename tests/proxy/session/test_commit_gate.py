"""CommitGate: which chunks wait for Redis, for which keys, and until when those stay blocked."""

from __future__ import annotations

import asyncio

from cache.changes import Kind
from protocol import frontend
from tests.proxy.session.dialogue import BOUND, PARSED, Dialogue, Sink, done, error, q, ready, rows


class Block:
    """One that Redis confirms at once, or never."""

    def __init__(self, keys, *, confirmed):
        self.keys = keys
        self._confirmed = confirmed
        self.released = False

    async def wait(self, seconds):
        return self._confirmed


class Blocks(Sink):
    """A backlog that can block."""

    def __init__(self, *, confirmed):
        super().__init__()
        self.made: list[Block] = []
        self._confirmed = confirmed

    def block(self, changes):
        keys = sorted("*" if change.kind is Kind.FLUSH else change.key.decode() for change in changes)
        self.made.append(Block(keys, confirmed=self._confirmed))
        return self.made[-1]

    def release(self, block):
        block.released = True


class Gated(Dialogue):
    """A dialogue whose every chunk waits for what it has to, as the relay would."""

    def __init__(self, *, confirmed=True):
        sink = Blocks(confirmed=confirmed)
        super().__init__(before_commit=True, sink=sink)
        self.blocks = sink.made

    def client(self, *messages):
        super().client(*messages)
        self._waited_for = []
        if self.session.before_forwarding is not None:
            asyncio.run(self.session.before_forwarding)  # type: ignore[arg-type]  # a coroutine, as the relay awaits it
            self._waited_for = self.blocks[-1].keys
        return self

    def waited_for(self):
        """The keys the last chunk waited for."""
        return self._waited_for


def test_write_outside_a_block_waits_for_its_key():
    d = Gated()
    assert d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).waited_for() == ["users:1"]
    d.server(done("UPDATE 1"))
    assert not d.blocks[0].released
    d.server(ready())
    assert d.blocks[0].released
    assert d.got() == ["STORE users:1=a"]


def test_read_does_not_wait():
    d = Gated()
    assert d.client(q("SELECT id, name FROM users")).waited_for() == []
    d.server(*rows((1, b"a")), done("SELECT 1"), ready())
    assert d.client(q("SELECT 1")).waited_for() == []


def test_commit_waits_for_all_its_block_wrote():
    d = Gated()
    assert d.client(q("BEGIN")).waited_for() == []
    d.server(done("BEGIN"), ready("T"))
    assert d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).waited_for() == []
    d.server(done("UPDATE 1"), ready("T"))
    assert d.client(q("DELETE FROM users WHERE id = 2")).waited_for() == []
    d.server(done("DELETE 1"), ready("T"))
    assert d.client(q("COMMIT")).waited_for() == ["users:1", "users:2"]
    d.server(done("COMMIT"), ready())
    assert d.got() == ["STORE users:1=a", "EVICT users:2"]


def test_rollback_does_not_wait():
    d = Gated()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    assert d.client(q("ROLLBACK")).waited_for() == []


def test_write_to_an_unknown_key_waits_for_its_whole_rule():
    assert Gated().client(q("UPDATE users SET name = 'a' WHERE name = 'b'")).waited_for() == ["*"]


def test_pipeline_waits_for_what_it_names_before_the_server_confirmed_any_of_it():
    d = Gated()
    text = b"UPDATE users SET name = $1 WHERE id = $2"
    d.client(frontend.Parse(b"s", text), frontend.Bind(b"", b"s", (), [b"new", b"3"]), frontend.Execute(b""))
    assert d.client(frontend.Sync()).waited_for() == ["users:3"]
    d.server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:3=new"]
    assert all(block.released for block in d.blocks)


def test_statement_the_server_refused_is_unknown_after_the_wait_for_it():
    d = Gated()
    d.client(frontend.Parse(b"s", b"UPDATE users SET name = 'a' WHERE id = 1"), frontend.Sync())
    d.server(error(), ready())
    d.client(frontend.Bind(b"", b"s"), frontend.Execute(b""), frontend.Sync()).server(BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "], "the statement the server has is not the one it refused"


def test_keys_are_released_if_the_write_fails():
    d = Gated()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(error(), ready())
    assert d.blocks[0].released
    assert d.got() == []


def test_keys_of_a_lost_session_are_released_after_they_are_evicted():
    d = Gated()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1"))
    d.session.closed(backend_ended=True)
    assert d.blocks[0].released
    assert d.got() == ["EVICT users:1"]


def test_wait_that_redis_does_not_confirm_in_time_is_counted():
    d = Gated(confirmed=False)
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1"))
    assert d.counts.unconfirmed == 1
