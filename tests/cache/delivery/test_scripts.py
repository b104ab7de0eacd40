"""The scripts by themselves: how they are put together, what they say to a worker they do not know, and to a batch that
comes late."""

import re
import time
from pathlib import Path

import pytest
import redis

from cache.delivery import scripts
from cache.delivery.scripts import SHARED, Script, load

LIFE = 60_000
FILES = sorted((Path(scripts.__file__).parent / "lua").glob("*.lua"))
SCRIPTS = {path.stem: getattr(scripts, path.stem.upper()) for path in FILES if path.stem != "common"}


def code(path):
    """A Lua file without its comments."""
    return re.sub(r"--.*", "", path.read_text())


# How they are put together.


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_name_in_capitals_is_a_shared_one_or_the_files_own(path):
    words = set(re.findall(r"(?<!')\b[A-Z][A-Z_]+\b(?!')", code(path)))
    own = {word for names in re.findall(r"local ([A-Z_, ]+) =", code(path)) for word in names.split(", ")}
    assert words - own - {"ARGV", "KEYS"} <= set(SHARED)


def test_every_shared_name_is_used_or_explained():
    text = "".join(path.read_text() for path in FILES)
    assert [word for word in SHARED if not re.search(rf"\b{word}\b", text)] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_is_given_and_returns(name):
    header, _, _ = next(path for path in FILES if path.stem == name).read_text().partition("\n\n")
    for word in ("KEYS", "ARGV", "Returns"):
        assert re.search(rf"^-- {word} ", header, re.MULTILINE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_in_its_file(name, redis_client):
    script = SCRIPTS[name]
    assert b"\n-- include" not in script.text
    assert redis_client.script_load(script.text).encode() == script.digest


def test_a_line_of_a_script_is_found_in_its_file():
    lines = scripts.APPLY.text.decode().split("\n")
    shared, common, own = (
        next(number for number, line in enumerate(lines, 1) if line.startswith(start))
        for start in ("local STATE", "local clock", "for i = 1, change_count")
    )
    for number, name in ((common, "common.lua"), (own, "apply.lua")):
        file, _, line = scripts.APPLY.origin(number).partition(":")
        assert file == name
        text = next(path for path in FILES if path.name == name).read_text()
        assert text.split("\n")[int(line) - 1] == lines[number - 1]
    assert scripts.APPLY.origin(shared) == "scripts.SHARED"
    assert scripts.APPLY.origin(0) == "line 0"
    assert scripts.APPLY.origin(10_000) == "line 10000"
    assert Script("return 1").origin(1) == "line 1"


def test_a_file_is_loaded_with_what_it_includes():
    text = load("block.lua").text.decode()
    assert text.count("local function read_fence") == 1
    assert text.startswith("local STATE = 'rowtap:state' ")


# What they do.


class Caller:
    """Speaks to the scripts as a worker does."""

    def __init__(self, client, name="w", token="t"):
        self.client, self.name, self.token, self.seen = client, name, token, 0

    def join(self, *rules, registered=0, run="r", lease=30_000):
        reply = self.client.eval(
            scripts.JOIN.text,
            0,
            self.name,
            self.token,
            self.seen,
            registered,
            run,
            lease,
            LIFE,
            *(x for r in rules for x in r),
        )
        if reply[0] == scripts.DONE:
            self.seen = reply[1]
        return reply

    def apply(self, key, *change, sent=None, out_of_memory=0, writes=1):
        now = int(time.time() * 1000) if sent is None else sent
        facts = (self.name, self.token, self.seen, now, out_of_memory, writes, LIFE)
        reply = self.client.eval(scripts.APPLY.text, 1, key, *facts, 1, 1, 0, 0, "rule", *change)
        if reply[0] == scripts.DONE:
            self.seen = reply[1]
        return reply


@pytest.fixture
def caller(redis_client):
    return Caller(redis_client)


def test_worker_that_has_not_joined_is_told_to(caller, redis_client):
    assert caller.apply("k", "S", 1, 0, 0, "v") == [scripts.REJOIN]
    assert list(redis_client.scan_iter()) == []


def test_counter_starts_above_what_any_clock_gave_before(caller):
    _, seq, epoch, clock, changed, orphans = caller.join(("rule", "d"))
    assert seq == epoch
    assert seq // 1000 == pytest.approx(clock, abs=2)
    assert (changed, orphans) == ([b"rule"], [])
    assert caller.join(("rule", "d"), registered=1)[1:5] == [seq, epoch, pytest.approx(clock, abs=5000), []]


def test_keys_of_the_scripts_never_expire(caller, redis_client):
    caller.join(("rule", "d"))
    caller.apply("k", "E", 1, 0, 1000)
    assert {key: redis_client.ttl(key) for key in redis_client.scan_iter()} == dict.fromkeys(
        (scripts.STATE, *scripts.FENCES), -1
    )


@pytest.mark.parametrize("late", [False, True])
def test_values_of_a_batch_are_refused_if_it_comes_late(caller, redis_client, late):
    caller.join(("rule", "d"))
    sent = int(time.time() * 1000) - (LIFE // 4 + 1000 if late else 0)
    reply = caller.apply("k", "S", 1, caller.seen, 0, "v", sent=sent)
    assert reply[4] == (b"O" if late else b"S")
    assert redis_client.get("k") == (None if late else b"v")
    reply = caller.apply("l", "F", 1, caller.seen, 0, "v", sent=sent, writes=0)
    assert reply[4] == (b"R" if late else b"F")


def test_statements_dated_before_a_silence_are_refused(caller, redis_client):
    caller.join(("rule", "d"))
    seq = caller.seen
    redis_client.hincrby(scripts.STATE, "time", -LIFE // 2 - 1000)
    assert caller.apply("k", "F", 1, seq, 0, "v", writes=0)[4] == b"R"
    assert caller.apply("k", "F", 1, caller.seen, 0, "v", writes=0)[4] == b"F"


def test_statements_dated_before_the_clock_went_back_are_refused(caller, redis_client):
    caller.join(("rule", "d"))
    seq = caller.seen
    redis_client.hincrby(scripts.STATE, "rotated", 10_000)
    assert caller.apply("k", "F", 1, seq, 0, "v", writes=0)[4] == b"R"
    assert caller.apply("k", "F", 1, caller.seen, 0, "v", writes=0)[4] == b"F"


def test_worker_whose_name_was_taken_over_is_told_to_join(caller, redis_client):
    caller.join(("rule", "d"))
    other = Caller(redis_client, token="u")
    assert other.join(("rule", "d"))[5] == [b"rule"], "its predecessor seems to have died"
    assert caller.apply("k", "S", 1, caller.seen, 0, "v") == [scripts.REJOIN]
    assert caller.join(("rule", "d"), registered=1) == [scripts.REJOIN]


def test_one_block_is_kept_of_writes_that_may_commit_later(caller, redis_client):
    caller.join(("rule", "d"))
    for _ in range(5):
        caller.apply("k", "E", 1, 0, 1000)
    fence = redis_client.hget(scripts.FENCES[0], "k") or redis_client.hget(scripts.FENCES[1], "k")
    assert fence.count(b"@") == 1


def test_another_run_id_begins_an_epoch(caller):
    epoch = caller.join(("rule", "d"))[2]
    reply = caller.join(("rule", "d"), registered=1, run="another")
    assert reply[2] > epoch
    assert reply[4] == [b"rule"]


def test_rowtaps_key_of_another_type_is_an_error_and_not_a_wrong_value(caller, redis_client):
    redis_client.set(scripts.STATE, "mine")
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE|wrong kind"):
        caller.join(("rule", "d"))
