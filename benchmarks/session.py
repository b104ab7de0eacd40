"""What observing costs a statement: a session's two chunks beside a bare walk over the same frames.

    python benchmarks/session.py [--profile CASE]

Each case is one statement as a driver sends it and PostgreSQL answers it, each way in one chunk. Prints CPU time a
statement and its ratio to ``FrameScanner`` walking the same chunks without a handler for any message; only the ratios
may be compared between machines and runs. The best of several rounds counts, and rounds of all cases alternate.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
from pathlib import Path
from time import thread_time_ns
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from cache.capture.database import Database
from cache.catalog.tables import BoundRule, Catalog, Column, Link, LinkType, Relation
from cache.counts import Counts
from cache.keys import KeyTemplate
from cache.rules import TableRule
from cache.sql.memo import PlanMemo
from protocol import FrameScanner, backend, codes, frontend
from proxy.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cache.changes import Change
    from cache.delivery.blocks import Block
    from protocol.message import Message

ROUNDS = 25
STATEMENTS = 500
OID = 4711
PARAMETERS = {
    "server_version": "18.1",
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "search_path": '"$user", public',
    "in_hot_standby": "off",
}


class Sink:
    """A backlog that forgets at once, so that only the session is measured."""

    seq = 1

    def put(self, changes: Sequence[Change]) -> None:
        pass

    def block(self, changes: Iterable[Change]) -> Block:
        raise NotImplementedError  # before_commit is not measured here

    def release(self, block: Block) -> None:
        raise NotImplementedError


def database() -> Database:
    """One configured table, users, as a catalog query would have shown it."""
    template = KeyTemplate.parse("users:{id}", database="app", schema="public", table="users", key_columns=("id",))
    rule = TableRule("app", "public", "users", ("id",), ("name",), template, label="users")
    columns = {"id": Column("id", 1, 23, -1, base_oid=23), "name": Column("name", 2, 25, -1, base_oid=25)}
    relation = Relation(OID, "public", "users", "r", columns, unique=(frozenset({"id"}),))
    bound = BoundRule(rule, relation, (columns["id"],), (columns["name"],))
    found = Database("app", [rule], PlanMemo(1000))
    found.catalog = Catalog(
        "app",
        bound=(bound,),
        relations={OID: relation},
        links={OID: (Link(OID, bound, LinkType.SELF),)},
        names={"users": (OID,)},
    )
    found.learned, found.due_at = True, 1 << 62
    return found


def chunk(*messages: Message) -> bytes:
    return b"".join(map(bytes, messages))


ID = backend.FieldDescription(b"id", OID, 1, 23, 4)
NAME = backend.FieldDescription(b"name", OID, 2, 25)
OTHER = backend.RowDescription((backend.FieldDescription(b"abalance", 99, 3, 23, 4),))
PARSED, BOUND, READY = backend.ParseComplete(), backend.BindComplete(), backend.ReadyForQuery(codes.IDLE)
DONE = backend.CommandComplete(b"SELECT 1")
KEY = (17).to_bytes(4, "big")
EXECUTE = (frontend.Execute(b""), frontend.Sync())
DESCRIBE = (frontend.Describe(codes.PORTAL, b""), *EXECUTE)
UNRELATED = b"SELECT abalance FROM pgbench_accounts WHERE aid = "
CAPTURED = b"SELECT id, name FROM users WHERE id = "


class Case(NamedTuple):
    """One statement: what is said once beforehand, then what is said and answered again and again."""

    name: str
    said: Sequence[bytes]
    answered: bytes
    prepared: bytes = b""
    described: bytes = b""


def bind(statement: bytes, *rest: Message, form: int = 1) -> bytes:
    return chunk(frontend.Bind(b"", statement, (form,), [KEY if form else b"17"], (form,)), *rest)


def prepare(text: bytes, *fields: backend.FieldDescription) -> dict[str, bytes]:
    return {
        "prepared": chunk(
            frontend.Parse(b"s", text), frontend.Describe(codes.PREPARED_STATEMENT, b"s"), frontend.Sync()
        ),
        "described": chunk(PARSED, backend.ParameterDescription((23,)), backend.RowDescription(fields), READY),
    }


def cases() -> Iterator[Case]:
    one = backend.DataRow([b"1"])
    row = backend.DataRow([b"17", b"Ada Lovelace"])
    fields = backend.RowDescription((ID, NAME))
    answer = chunk(OTHER, one, DONE, READY)
    filling = chunk(fields, row, DONE, READY)
    other = OTHER.fields[0]
    keyed = (ID, NAME)
    binary = backend.DataRow([KEY, b"Ada Lovelace"])
    described = backend.RowDescription(
        tuple(backend.FieldDescription(f.name, OID, f.column_number, f.type_oid, 4, -1, 1) for f in keyed)
    )
    yield Case("simple, unrelated", [chunk(frontend.Query(UNRELATED + b"17"))], answer)
    many = [chunk(frontend.Query(UNRELATED + b"%d" % n)) for n in range(STATEMENTS)]
    yield Case("simple, unrelated, literals vary", many, answer)
    yield Case(
        "prepared, unrelated",
        [bind(b"s", *EXECUTE)],
        chunk(BOUND, one, DONE, READY),
        **prepare(UNRELATED + b"$1", other),
    )
    yield Case(
        "prepared, unrelated, described",
        [bind(b"s", *DESCRIBE)],
        chunk(BOUND, OTHER, one, DONE, READY),
        **prepare(UNRELATED + b"$1", other),
    )
    yield Case(
        "parsed, unrelated",
        [chunk(frontend.Parse(b"", UNRELATED + b"$1")) + bind(b"", *DESCRIBE)],
        chunk(PARSED, BOUND, OTHER, one, DONE, READY),
    )
    yield Case("simple, captured", [chunk(frontend.Query(CAPTURED + b"17"))], filling)
    many = [chunk(frontend.Query(CAPTURED + b"%d" % n)) for n in range(STATEMENTS)]
    yield Case("simple, captured, literals vary", many, filling)
    yield Case(
        "prepared, captured",
        [bind(b"s", *EXECUTE)],
        chunk(BOUND, binary, DONE, READY),
        **prepare(CAPTURED + b"$1", *keyed),
    )
    yield Case(
        "prepared, captured, described",
        [bind(b"s", *DESCRIBE)],
        chunk(BOUND, described, binary, DONE, READY),
        **prepare(CAPTURED + b"$1", *keyed),
    )
    text = b"SELECT name FROM users WHERE id = $1"
    yield Case(
        "prepared, captured, key in WHERE",
        [bind(b"s", *EXECUTE)],
        chunk(BOUND, backend.DataRow([b"Ada"]), DONE, READY),
        **prepare(text, NAME),
    )
    yield Case(
        "parsed, captured",
        [chunk(frontend.Parse(b"", CAPTURED + b"$1")) + bind(b"", *DESCRIBE, form=0)],
        chunk(PARSED, BOUND, fields, row, DONE, READY),
    )
    update = chunk(frontend.Query(b"UPDATE users SET name = 'x' WHERE id = 17"))
    yield Case("update, stored", [update], chunk(backend.CommandComplete(b"UPDATE 1"), READY))
    other_update = chunk(frontend.Query(b"UPDATE accounts SET balance = 1 WHERE id = 17"))
    yield Case("update, unrelated", [other_update], chunk(backend.CommandComplete(b"UPDATE 1"), READY))
    pipeline = bind(b"s", *EXECUTE[:1]) * 10 + chunk(frontend.Sync())
    answers = chunk(BOUND, binary, DONE) * 10 + chunk(READY)
    yield Case("ten in a pipeline, captured", [pipeline], answers, **prepare(CAPTURED + b"$1", *keyed))


def fault(where: str, error: BaseException) -> None:
    raise error


def observed(case: Case) -> Callable[[], None]:
    counts = Counts.of(["users"])
    session = Session(database(), Sink(), counts, PARAMETERS, {"user": "me"}, on_internal_error=fault)
    if case.prepared:
        session.frontend(case.prepared)
        session.backend(case.described)
    say, answer, said, answered = session.frontend, session.backend, case.said, case.answered

    def run() -> None:
        for data in said:
            say(data)
            answer(answered)

    run()
    if session.blinded:
        sys.exit(f"{case.name}: the session could not be followed")
    return run


def walked(case: Case) -> Callable[[], None]:
    """The same chunks, without a handler for any message."""
    scanners = [
        FrameScanner([None] * 256, limits, oversize=lambda kind, length, prefix: None)
        for limits in (frontend.LIMITS, backend.LIMITS)
    ]
    say, answer, said, answered = scanners[0].feed, scanners[1].feed, case.said, case.answered

    def run() -> None:
        for data in said:
            say(data)
            answer(answered)

    return run


def once(case: Case, run: Callable[[], None]) -> float:
    """Microseconds of CPU a statement."""
    times = STATEMENTS // len(case.said)
    begin = thread_time_ns()
    for _ in range(times):
        run()
    return (thread_time_ns() - begin) / (times * len(case.said)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", metavar="CASE", help="profile one case instead")
    chosen = parser.parse_args().profile
    found = list(cases())
    if chosen:
        profile(next(case for case in found if case.name == chosen))
        return
    runs = [(case, observed(case), walked(case)) for case in found]
    best = [[1e9, 1e9] for _ in runs]
    for _ in range(ROUNDS):
        for times, (case, *pair) in zip(best, runs, strict=True):
            times[:] = [min(before, once(case, run)) for before, run in zip(times, pair, strict=True)]
    print(f"{'per statement':36} {'µs':>7} {'÷ walk':>7}")
    for (session, walk), case in zip(best, found, strict=True):
        print(f"{case.name:36} {session:7.2f} {session / walk:7.1f}")


def profile(case: Case) -> None:
    run = observed(case)
    profiler = cProfile.Profile()
    for _ in range(10_000 // len(case.said)):
        profiler.runcall(run)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
