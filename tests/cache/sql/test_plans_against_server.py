"""Plans against a real server: what Redis would hold after each statement, against the rows that are there then.

Each case starts with every row of every configured table in an imitation of Redis, runs in a transaction that is rolled
back, and makes of the server's answers the changes that its plans ask for. Then no key may differ from its row.

The cases are in plans/*.txt, one a line, each after the kinds of change that it makes, so that none passes by doing
nothing: F fill, S store, E evict, X flush, - none, error. "␤" stands for a newline, and parameters follow "⇐", one
between each two "|".
"""

import contextlib
from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from cache.capture import rows
from cache.capture.arguments import Arguments
from cache.capture.write_changes import changes_of_write
from cache.catalog import query as catalog_query
from cache.catalog.tables import Scope
from cache.changes import Kind
from cache.keys import KeyTemplate
from cache.rules import TableRule, ValueFormat
from cache.sql import templates
from cache.sql.memo import PlanMemo
from cache.sql.plans import Command
from cache.values import loaders as values
from cache.values.loaders import ValueSettings
from protocol.backend import FieldDescription
from tests.cache import catalogs
from tests.fix_postgres import fresh_database

PLANS = Path(__file__).parent / "plans"
TABLES = [
    ("users", ("id",), ("name",), "string"),
    ("orders", ("tenant", "id"), ("note", "total"), "hash"),
    ("docs", ("id",), ("body", "flag", "mood"), "json"),
    ("swapped", ("name",), ("id",), "string"),
    ("parted", ("id",), ("name",), "string"),
    ("triggered", ("id",), ("name",), "string"),
    ("made", ("id",), ("name",), "string"),
    ("ruled", ("id",), ("name",), "string"),
    ("flags", ("flag",), ("name",), "string"),
    ("codes", ("code",), ("name",), "string"),
    ("Ünï Tab", ("id",), ("näme",), "string"),
    ("tree", ("id",), ("parent",), "string"),
    ("twice", ("id",), ("mail", "name"), "hash"),
    ("twice", ("mail",), ("id",), "json"),
    ("long_" + "x" * 58, ("id",), ("name",), "string"),
]
"""Table, key columns, value columns and format of each rule."""
LETTERS = {Kind.FILL: "F", Kind.STORE: "S", Kind.EVICT: "E", Kind.FLUSH: "X"}
CANONICAL = ("SET TimeZone = 'UTC'", "SET extra_float_digits = 1", "SET client_encoding = 'UTF8'")
STAMP = (0, 0)


def rule(table, key, value, style):
    schema, label = "public", f"{table} by {key[0]}"
    template = KeyTemplate.parse(
        f"{label}:" + ":".join(f"{{{column}}}" for column in key),
        database="app", schema=schema, table=table, key_columns=key,
    )  # fmt: skip
    return TableRule("app", schema, table, key, value, template, ValueFormat(style), label=label)


class Server:
    """A database with the tables of the cases, one session on it, and what is known of both."""

    def __init__(self, connection):
        self.wire = connection.pgconn
        for text in (*CANONICAL, (PLANS / "schema.sql").read_text("utf-8")):
            result = self.wire.exec_(text.encode())
            assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message.decode()
        rules = [rule(*table) for table in TABLES]
        found = self.wire.exec_(catalog_query.text(rules).encode())
        assert found.status == pq.ExecStatus.TUPLES_OK, found.error_message
        self.catalog = catalog_query.parse(found.get_value(0, 0), "app", rules)
        assert not self.catalog.unbound
        lists = [(table, ", ".join(f'"{column}"' for column in (*key, *value))) for table, key, value, _ in TABLES]
        self.question = "; ".join(f'SELECT {columns} FROM public."{table}"' for table, columns in lists)
        names = (b"client_encoding", b"server_encoding", b"DateStyle", b"IntervalStyle", b"TimeZone", b"server_version")
        parameters = {name.decode(): self.wire.parameter_status(name).decode() for name in names}
        self.settings = ValueSettings.from_parameters(parameters, float_digits_certain=True)
        self.statements = PlanMemo(2000)
        self.scope = Scope(("public",))

    def rows(self):
        """What Redis may hold: by rule, each row's key and value."""
        held = {}
        for bound, result in zip(self.catalog.bound, self.run(self.question, None, binary=False), strict=True):
            keys, render = len(bound.key), bound.rule.template.render
            rows = [row for row in answers(result) if None not in row[:keys]]
            found = {render(row[:keys]): values.render(bound.rule, bound.value, row[keys:]) for row in rows}
            held[bound.rule.label] = {key: value for key, value in found.items() if value is not None}
        return held

    def run(self, text, parameters, *, binary):
        """The results of one text, in order."""
        if parameters is None and not binary:
            self.wire.send_query(text.encode())
        else:
            given = [None if value is None else str(value).encode() for value in parameters or ()]
            self.wire.send_query_params(text.encode(), given, result_format=int(binary))
        found = []
        while (result := self.wire.get_result()) is not None:
            found.append(result)
        return found


def answers(result):
    """The rows of a result, as they came over the wire."""
    columns = range(result.nfields)
    return [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]


class Session:
    """What a session keeps of one case: prepared statements, cursors, and the imitation of Redis."""

    def __init__(self, server, held):
        self.server = server
        self.held = {label: dict(rows) for label, rows in held.items()}
        self.kinds = set()
        self.named = {}
        self.dirty = False
        self.scope = server.scope

    def finished(self, plan, arguments, result):
        """One statement came to its end."""
        if plan.shadows:
            self.scope = Scope(self.scope.search_path, self.scope.shadowed | set(plan.shadows))
        if plan.command in (Command.PREPARE, Command.DECLARE):
            self.named[plan.name] = (plan.inner, arguments)
            return
        if plan.command is Command.EXECUTE:
            inner, outer = self.named[plan.name]
            arguments = outer.followed_by(self.server, (arguments.made, plan.arguments))
            self.dirty = self.dirty or plan.opaque
            plan = inner
        elif plan.command is Command.FETCH:
            plan, arguments = self.named[plan.name]
        self.changed(plan, arguments.made, result)
        self.dirty = self.dirty or plan.modifies or plan.opaque

    def changed(self, plan, arguments, result):
        row_plans, _ = rows.row_plans(plan, fields(result), formats(result), self.server.settings)
        collectors = [rows.RowCollector(row_plan, arguments) for row_plan in row_plans]
        for row in answers(result):
            for collector in collectors:
                collector.add(row)
        for collector in collectors:
            if collector.row_plan.kind is Kind.FILL and not self.dirty:
                for key, value in collector.rows:
                    if value is not None:
                        self.put("F", collector.row_plan.bound.rule, key, value)
        of = {collector.row_plan.write: collector for collector in collectors}
        count = int(result.command_tuples or 0) if result.command_tuples is not None else None
        for write in plan.writes:
            for change in changes_of_write(write, arguments, count, of.get(write), STAMP, certain=True):
                self.apply(change)

    def apply(self, change):
        letter, rows = LETTERS[change.kind], self.held[change.rule.label]
        if change.kind is Kind.STORE and not change.partial:
            self.put(letter, change.rule, change.key, change.value)
            return
        self.kinds.add(letter)
        if change.kind is Kind.FLUSH:
            rows.clear()
        elif change.kind is Kind.EVICT:
            rows.pop(change.key, None)
        elif rows.get(change.key) is not None:
            fields_left = {name: text for name, text in rows[change.key].items() if name not in change.removed}
            rows[change.key] = fields_left | change.value

    def put(self, letter, to, key, value):
        self.kinds.add(letter)
        self.held[to.label][key] = value


class Given:
    """The arguments of one statement's run."""

    def __init__(self, server, literals, parameters):
        self.literals = literals
        raw = [None if value is None else str(value).encode() for value in parameters or ()]
        self.made = Arguments(literals, raw, settings=server.settings)

    def followed_by(self, server, outer):
        """The same statement's, run by an EXECUTE with arguments of its own."""
        given = Given(server, self.literals, ())
        given.made = Arguments(self.literals, settings=server.settings, outer=outer)
        return given


def fields(result):
    return [
        FieldDescription(b"", result.ftable(column), result.ftablecol(column), result.ftype(column))
        for column in range(result.nfields)
    ]


def formats(result):
    return [result.fformat(column) for column in range(result.nfields)]


@pytest.fixture(scope="module")
def server(postgres):
    with fresh_database(postgres) as name, psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
        yield Server(connection)


@pytest.fixture(scope="module")
def held(server):
    return server.rows()


@contextlib.contextmanager
def undone(wire):
    wire.exec_(b"BEGIN")
    try:
        yield
    finally:
        wire.exec_(b"ROLLBACK; DEALLOCATE ALL")


def cases():
    """Text, expected kinds of change, and parameters of each case."""
    for path in sorted(PLANS.glob("*.txt")):
        for line in path.read_text("utf-8").splitlines():
            kinds, _, rest = line.partition(" ")
            text, _, given = rest.strip().replace("␤", "\n").partition(" ⇐ ")
            yield pytest.param(text, kinds, given.split("|") if given else None, id=f"{path.stem}: {text[:100]}")


CASES = list(cases())


@pytest.mark.parametrize(("text", "expected", "parameters"), CASES)
def test_no_key_differs_from_its_row_after_a_statement(server, held, text, expected, parameters):
    for binary in (False, True):
        with undone(server.wire):
            results = server.run(text, parameters, binary=binary)
            problem = b"".join(result.error_message for result in results)
            assert bool(problem) is (expected == "error"), problem.decode()
            if problem:
                return
            session = Session(server, held)
            for number, result in enumerate(results):
                # What a statement does to names is known when the next one is planned.
                plans, literals = server.statements.plans(text.encode(), server.catalog, session.scope)
                session.finished(plans[number], Given(server, literals, parameters), result)
            assert len(plans) == len(results)
            rows = server.rows()
            for label, keys in session.held.items():
                wrong = {key: value for key, value in keys.items() if rows[label].get(key) != value}
                assert not wrong, f"{label} has {rows[label]}"
            assert ("".join(sorted(session.kinds)) or "-") == expected
        if len(results) > 1 or not results[0].nfields:
            return  # there is nothing binary about it


def test_template_has_the_effects_of_its_texts(server):
    """A text with a SHOW at its end has no template, so it is read as it is."""
    compared = 0
    for text, _, _ in (case.values for case in CASES):
        if templates.split(text.encode()) is None:
            continue
        compared += 1
        by_template, literals = server.statements.plans(text.encode(), server.catalog, server.scope)
        as_it_is, others = server.statements.plans(f"{text}\n; SHOW x".encode(), server.catalog, server.scope)
        assert len(as_it_is) == len(by_template) + 1
        for plan, other in zip(by_template, as_it_is, strict=False):
            assert (plan.reason, plan.command, plan.opaque) == (other.reason, other.command, other.opaque), text
            assert shown(plan, literals) == shown(other, others), text
    assert compared > 500


def shown(plan, literals):
    fixed = [[catalogs.shown(operand, literals) for operand in fill.fixed] for fill in plan.fills]
    return fixed, [catalogs.effect(write, literals) for write in plan.writes]
