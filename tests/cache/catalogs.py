"""Catalogs made by hand for the tests of statements, binding and explanations."""

from cache.builtin_types import TABLE
from cache.catalog.tables import BoundRule, Catalog, Column, Link, LinkType, Relation, Scope
from cache.keys import KeyTemplate
from cache.rules import TableRule, ValueFormat
from cache.sql import canonical, lexer
from cache.sql.commands import StatementReader
from cache.sql.memo import PlanMemo

PUBLIC = Scope(("public",))
TYPES = {row.name: row.oid for row in TABLE}


def column(name, number, kind, **facts):
    oid = TYPES.get(kind, 99_000)
    return Column(name, number, oid, -1, base_oid=facts.pop("base_oid", oid), **facts)


def relation(oid, name, columns=(), *, schema="public", kind="r", key=("id",), **facts):
    made = [column(*one) if isinstance(one, tuple) else one for one in columns]
    return Relation(oid, schema, name, kind, {one.name: one for one in made}, (frozenset(key),), **facts)


def bound(table, key=("id",), value=("name",), style=ValueFormat.STRING):
    template = KeyTemplate.parse(
        f"{table.name}:" + ":".join(f"{{{part}}}" for part in key),
        database="db", schema=table.schema, table=table.name, key_columns=key,
    )  # fmt: skip
    rule = TableRule("db", table.schema, table.name, key, value, template, style, label=f"{table.schema}.{table.name}")
    return BoundRule(
        rule, table, tuple(table.columns[part] for part in key), tuple(table.columns[part] for part in value)
    )


USERS_COLUMNS = (
    ("id", 1, "int4"), ("name", 2, "text"), ("email", 3, "varchar"), ("n", 4, "numeric"), ("seen", 5, "timestamptz"),
)  # fmt: skip


def catalog(table=None, rule=None, *, others=(), links=(), **facts):
    """One table, ``users`` unless given, its rule, and what else reaches it."""
    table = table or relation(1, "users", USERS_COLUMNS)
    rule = rule or bound(table)
    relations = {one.oid: one for one in (table, *others)}
    by_oid = {table.oid: (Link(table.oid, rule, LinkType.SELF),)}
    for link in links:
        by_oid[link.oid] = (*by_oid.get(link.oid, ()), link)
    names: dict[str, tuple[int, ...]] = {}
    for one in relations.values():
        names[one.name] = (*names.get(one.name, ()), one.oid)
    return Catalog("db", (rule,), (), relations, by_oid, names, **facts)


USERS = catalog()


def plans(text, where=USERS, scope=PUBLIC):
    return PlanMemo(100).plans(text if isinstance(text, bytes) else text.encode(), where, scope)


def plan(text, where=USERS, scope=PUBLIC):
    found, _ = plans(text, where, scope)
    assert len(found) == 1, text
    return found[0]


def effects(text, where=USERS, scope=PUBLIC):
    """One statement's effects as short words: ``store 1=a``, ``evict 1 2``, ``flush``, ``fill id=1``, …"""
    found, literals = plans(text, where, scope)
    assert len(found) == 1, text
    out = []
    for fill in found[0].fills:
        fixed = [shown(operand, literals) for operand in fill.fixed]
        out.append("fill" if set(fixed) == {None} else "fill " + ",".join(part or "row" for part in fixed))
    out += [effect(write, literals) for write in found[0].writes]
    return "; ".join(out)


def effect(write, literals):
    out = write.action.value
    for target in write.targets:
        out += " " + ",".join(shown(operand, literals) for operand in target.key)
        if target.values:
            out += "=" + ",".join(shown(operand, literals) or "-" for operand in target.values)
    if write.array is not None:
        out += " any " + shown(write.array, literals)
    if not write.counted:
        out += " uncounted"
    if write.returning.value != "no":
        out += " returning " + write.returning.value
    return out


def shown(operand, literals):
    if operand is None:
        return None
    if operand.source.value == "parameter":
        text = f"${operand.index + 1}"
    elif operand.source.value == "literal":
        text = literals[operand.index].value.decode()
    else:
        text = operand.source.value
    return ("-" if operand.negative else "") + text + (f"::{operand.cast}" if operand.cast else "")


def statement(text):
    """What one statement says, before its names are looked up."""
    tokens, _ = canonical.number_literals(lexer.tokenize(text))
    (only,) = lexer.split_statements(tokens)
    return StatementReader().read(only)
