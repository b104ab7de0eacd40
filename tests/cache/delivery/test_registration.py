"""Workers that come, go, die and take each other's names; rules that change; against a real server."""

import pytest

from cache.rules import ValueFormat
from tests.cache.delivery.writing import make_rule, working


async def test_worker_that_ends_well_leaves_the_keys_and_no_registration(redis_url, redis_client):
    async with working(redis_url) as w:
        w.store(b"v")
        assert await w.writer.drain(5)
        assert not redis_client.hexists("rowtap:state", "w:w")
    async with working(redis_url) as w:
        assert redis_client.get("users:1") == b"v"


@pytest.mark.parametrize("name", ["w", "neighbour"])
async def test_tables_of_a_dead_worker_are_flushed_by_the_next_one_that_has_them(redis_url, redis_client, name):
    rules = [make_rule("users"), make_rule("b")]
    async with working(redis_url, rules=rules) as w:
        w.store(b"v")
        w.store(b"v", key=b"b:1", rule=rules[1])
        await w.settle()
    async with working(redis_url, name, lease=0.2) as other:
        await other.until(lambda: redis_client.get("users:1") is None)
        await other.settle()
        other.fill(b"v")
        await other.settle()
        assert redis_client.get("users:1") is None, "the dead one's last statements may still commit"
        assert redis_client.get("b:1") == b"v", "not this worker's table"
    async with working(redis_url, "third", rules=rules, lease=0.2) as third:
        await third.until(lambda: redis_client.get("b:1") is None)


async def test_worker_whose_name_another_process_took_goes_on_under_another(redis_url, redis_client):
    async with working(redis_url) as first:
        first.store(b"old")
        await first.settle()
        async with working(redis_url) as second:
            assert redis_client.get("users:1") is None, "for the second one, the first seemed to have died"
            stamp = second.stamp()
            first.store(b"new", key=b"users:2")
            await first.settle()
            assert first.writer.registration.worker.startswith("w#")
            assert second.writer.registration.worker == "w"
            assert "another worker goes by this one's name" in first.events
            second.fill(b"older", key=b"users:2", stamp=stamp)
            await second.settle()
            assert redis_client.get("users:2") in (None, b"new")


async def test_statements_under_way_are_too_old_when_redis_clock_jumps(redis_url, redis_client):
    async with working(redis_url) as w:
        stamp = w.stamp()
        w.store(b"old", key=b"users:2")
        await w.settle()
        w.writer.registration._clock_offset_ms -= 10_000
        w.evict(key=b"users:9")
        await w.settle()
        w.fill(b"v", stamp=stamp)
        w.store(b"v", key=b"users:2", stamp=stamp)
        await w.settle()
        assert redis_client.mget("users:1", "users:2") == [None, None]
        assert "clocks jumped: statements under way will not fill" in w.events
        w.fill(b"v")
        await w.settle()
        assert redis_client.get("users:1") == b"v"


async def test_rule_that_means_other_keys_is_flushed_at_the_start(redis_url, redis_client):
    async with working(redis_url) as w:
        w.store(b"v")
        assert await w.writer.drain(5)
    async with working(redis_url, rules=[make_rule(form=ValueFormat.JSON)]):
        assert redis_client.get("users:1") is None


async def test_rules_that_change_while_running_lose_their_keys_unless_they_mean_the_same(redis_url, redis_client):
    old, gone = make_rule(), make_rule("gone")
    async with working(redis_url, rules=[old, gone]) as w:
        w.store(b"v")
        w.store(b"v", key=b"gone:1", rule=gone)
        await w.settle()
        w.backlog.configure([make_rule()])
        w.writer.reconfigured()
        await w.settle()
        assert redis_client.mget("users:1", "gone:1") == [b"v", None]
        w.store(b"w", rule=old)
        await w.settle()
        assert redis_client.get("users:1") == b"w"
        w.backlog.configure([make_rule(form=ValueFormat.JSON)])
        w.writer.reconfigured()
        w.fill(b"x", rule=old)
        await w.settle()
        assert redis_client.get("users:1") is None
