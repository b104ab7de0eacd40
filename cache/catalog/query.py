"""The catalog query, the only one Rowtap asks a database, and how its answer becomes a ``Catalog``.

It is asked over a client's session, so it must not depend on that session's settings. The caller makes sure that every
name in it is found in ``pg_catalog`` and not among functions and operators of the client. The answer is one column of
hexadecimal digits, which are the same in every client encoding. Works from PostgreSQL 12 on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.builtin_types import ANYENUM
from cache.catalog.links import Edge, links_to
from cache.catalog.tables import BoundRule, Catalog, Column, LinkType, Relation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cache.keys import KeyTemplate
    from cache.rules import TableRule

# The relations whose writes may change rows of relation ``r.oid``. Each line is one lookup in an index: how many other
# relations the database has does not matter.
_EDGES = """
    SELECT inhrelid AS written, 'child' AS how, NULL::oid AS con FROM pg_inherits WHERE inhparent = r.oid
    UNION ALL SELECT inhparent, 'parent', NULL FROM pg_inherits WHERE inhrelid = r.oid
    UNION ALL SELECT w.ev_class, 'view', NULL FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid
      WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid AND d.classid = 'pg_rewrite'::regclass
        AND w.ev_class <> r.oid
    UNION ALL SELECT confrelid, 'cascade', oid FROM pg_constraint
      WHERE conrelid = r.oid AND contype = 'f'
        AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))"""

# A relation is related when a write on it may change rows of a configured table: partitions and children, ancestors,
# anything whose rewrite rules mention it (views too), and what its foreign keys cascade from; all of these repeatedly.
# ``LATERAL (... OFFSET 0)`` keeps a lookup by index from becoming a join over the whole catalog. Everything is ordered,
# so that two answers are equal if, and only if, the facts are.
_TEXT = """
WITH RECURSIVE
configured AS MATERIALIZED (
  SELECT DISTINCT c.oid FROM (VALUES {configured}) v(nspname, relname) CROSS JOIN LATERAL (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = v.relname AND n.nspname = v.nspname AND c.relkind IN ('r', 'p', 'v', 'm', 'f') OFFSET 0) c),
related(oid) AS (
  SELECT oid FROM configured
  UNION SELECT e.written FROM related r CROSS JOIN LATERAL ({edges} OFFSET 0) e),
edge AS MATERIALIZED (
  SELECT DISTINCT r.oid AS target, e.written, e.how, e.con FROM related r CROSS JOIN LATERAL ({edges} OFFSET 0) e),
column_type(oid) AS (
  SELECT a.atttypid FROM configured f JOIN pg_attribute a ON a.attrelid = f.oid
  WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION SELECT i.oid FROM column_type c CROSS JOIN LATERAL (
    SELECT * FROM pg_type t WHERE t.oid = c.oid OFFSET 0) t CROSS JOIN LATERAL (
    SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' AND t.typelem <> 0
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
    UNION ALL SELECT a.atttypid FROM pg_attribute a
      WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) i),
relation AS MATERIALIZED (
  SELECT c.* FROM related r CROSS JOIN LATERAL (
    SELECT c.oid, c.relname, c.relkind, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = r.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') OFFSET 0) c),
facts AS MATERIALIZED (SELECT convert_to(json_build_object(
  'started', extract(epoch FROM pg_postmaster_start_time())::numeric::text,
  'relations', (SELECT coalesce(json_agg(json_build_object(
      'oid', c.oid::int8, 'schema', c.nspname, 'name', c.relname, 'kind', c.relkind::text,
      'rewritten', (SELECT count(*) > 0 FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.rulename <> '_RETURN'
                    AND w.ev_enabled <> 'D'),
      'rules', (SELECT coalesce(json_agg(json_build_array(w.oid::int8, w.xmin::text) ORDER BY w.oid), '[]')
                FROM pg_rewrite w WHERE w.ev_class = c.oid),
      'partition', (SELECT count(*) > 0 FROM pg_inherits i WHERE i.inhrelid = c.oid),
      'inherited', c.relkind <> 'p' AND (SELECT count(*) > 0 FROM pg_inherits i WHERE i.inhparent = c.oid),
      'triggers', (SELECT coalesce(json_agg(t.tgtype ORDER BY t.oid), '[]') FROM pg_trigger t
                   WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'),
      'unique', (SELECT coalesce(json_agg((SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
                    WHERE a.attrelid = c.oid
                    AND a.attnum = ANY ((string_to_array(i.indkey::text, ' ')::int2[])[1:i.indnkeyatts]))
                    ORDER BY i.indexrelid), '[]')
                 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indislive
                   AND i.indpred IS NULL AND i.indexprs IS NULL),
      'columns', CASE WHEN c.oid IN (SELECT oid FROM configured) THEN (
        SELECT coalesce(json_agg(json_build_object(
            'name', a.attname, 'number', a.attnum, 'type', a.atttypid::int8, 'modifier', a.atttypmod,
            'generated', a.attgenerated <> '',
            'deterministic', coalesce((SELECT l.collisdeterministic FROM pg_collation l WHERE l.oid = a.attcollation),
                                      true)) ORDER BY a.attnum), '[]')
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
      ELSE '[]' END) ORDER BY c.oid), '[]') FROM relation c),
  'edges', (SELECT coalesce(json_agg(json_build_object(
      'target', e.target::int8, 'written', e.written::int8, 'how', e.how,
      'on_delete', coalesce((SELECT k.confdeltype IN ('c', 'n', 'd') FROM pg_constraint k WHERE k.oid = e.con), true),
      'on_update', (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_constraint k JOIN pg_attribute a
                      ON a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)
                    WHERE k.oid = e.con AND k.confupdtype IN ('c', 'n', 'd')))
      ORDER BY e.target, e.written, e.how, e.con), '[]')
    FROM edge e WHERE e.written IN (SELECT oid FROM relation)),
  'types', (SELECT coalesce(json_agg(json_build_object(
      'oid', t.oid::int8, 'kind', t.typtype::text, 'name', t.typname, 'base', t.typbasetype::int8,
      'element', CASE WHEN t.typcategory = 'A' THEN t.typelem::int8 ELSE 0 END,
      'subtype', (SELECT r.rngsubtype::int8 FROM pg_range r
                  WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)),
      'attributes', (SELECT coalesce(json_agg(a.atttypid::int8 ORDER BY a.attnum), '[]') FROM pg_attribute a
                     WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
      ORDER BY t.oid), '[]')
    FROM column_type c CROSS JOIN LATERAL (SELECT * FROM pg_type t WHERE t.oid = c.oid OFFSET 0) t),
  'homonyms', (SELECT coalesce(json_agg(json_build_object(
      'oid', c.oid::int8, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind::text) ORDER BY c.oid), '[]')
    FROM (SELECT DISTINCT relname FROM relation) r CROSS JOIN LATERAL (
      SELECT c.oid, c.relname, c.relkind, c.relnamespace FROM pg_class c WHERE c.relname = r.relname OFFSET 0) c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid NOT IN (SELECT oid FROM relation)
      AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_(toast|temp)'),
  'volatile', (SELECT coalesce(json_agg(DISTINCT p.proname), '[]') FROM pg_proc p
    WHERE p.provolatile = 'v' AND p.prokind <> 'a' AND EXISTS (
      SELECT FROM pg_proc b WHERE b.proname = p.proname AND b.pronamespace = 'pg_catalog'::regnamespace)),
  'harmless', (SELECT coalesce(json_agg(f.proname ORDER BY f.proname), '[]') FROM (
    SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
    GROUP BY p.proname HAVING bool_and(p.provolatile <> 'v' AND p.prokind IN ('f', 'w'))) f),
  'float_digits_by_role', EXISTS (SELECT FROM pg_db_role_setting r
                                  WHERE array_to_string(r.setconfig, ',') LIKE '%extra_float_digits%')
)::text, 'UTF8') AS document),
answer AS (SELECT json_build_object(
  'digest', encode(sha256(document), 'hex'),
  'float_digits', (SELECT s.setting::int >= 1 FROM pg_settings s WHERE s.name = 'extra_float_digits'
                     AND s.source IN ('default', 'configuration file', 'command line')),
  'facts', CASE WHEN encode(sha256(document), 'hex') <> {known} THEN convert_from(document, 'UTF8')::json END
) AS document FROM facts)
SELECT encode(convert_to(document::text, 'UTF8'), 'hex') FROM answer
"""

_EVENTS = ((4, "INSERT"), (8, "DELETE"), (16, "UPDATE"), (32, "TRUNCATE"))
"""TRIGGER_TYPE_* bits of pg_trigger.tgtype."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    digest: str
    """``Catalog.digest``."""
    facts: dict[str, Any] | None
    """None: the digest is the one the query was asked with."""
    float_digits: bool | None
    """The server starts sessions with extra_float_digits of at least 1; None where the session that was asked hides it
    by a setting of its own."""


def text(rules: Iterable[TableRule], known: str = "") -> str:
    """The query for all ``rules`` of one database: one SELECT with one row of one column.

    ``known`` is the digest of the catalog that is here already: if it still holds, the answer is short.
    """
    names = sorted({(rule.schema, rule.table) for rule in rules})
    configured = ", ".join(f"({_quote(schema)}::name, {_quote(table)}::name)" for schema, table in names)
    return _TEXT.format(configured=configured, edges=_EDGES, known=_quote(known))


def _quote(name: str) -> str:
    """A string constant that reads the same whatever standard_conforming_strings is."""
    escaped = name.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def read(payload: bytes) -> Answer:
    """The answer ``payload`` (hexadecimal digits).

    Raises:
        ValueError: the payload is not an answer to ``text``.
    """
    try:
        document = json.loads(bytes.fromhex(payload.decode("ascii")))
        return Answer(str(document["digest"]), document["facts"], document["float_digits"])
    except (KeyError, TypeError) as error:
        raise _no_answer(error) from error


def parse(payload: bytes, database: str, rules: Sequence[TableRule]) -> Catalog:
    """The catalog that the whole answer ``payload`` describes, as asked for without a known digest.

    Raises:
        ValueError: the payload is not such an answer.
    """
    return catalog_of(read(payload), database, rules)


def catalog_of(answer: Answer, database: str, rules: Sequence[TableRule]) -> Catalog:
    """The catalog that ``answer`` describes.

    Raises:
        ValueError: its facts are not what ``text`` asks for, or it has none.
    """
    try:
        return _catalog(answer, answer.facts or {}, database, rules)
    except (KeyError, TypeError) as error:
        raise _no_answer(error) from error


def _no_answer(error: Exception) -> ValueError:
    return ValueError(f"not an answer to the catalog query: {error!r}")


def _catalog(answer: Answer, document: dict[str, Any], database: str, rules: Sequence[TableRule]) -> Catalog:
    edges = [_edge(entry) for entry in document["edges"]]
    types = Types(document["types"])
    relations = {entry["oid"]: _relation(entry, types) for entry in document["relations"]}
    relations = {oid: _with_descendants(relation, relations, edges) for oid, relation in relations.items()}
    by_name = {(relation.schema, relation.name): relation for relation in relations.values()}
    bound, unbound = _bind_all(rules, by_name)
    links = links_to(bound, edges)
    for entry in document["homonyms"]:
        relations[entry["oid"]] = Relation(entry["oid"], entry["schema"], entry["name"], entry["kind"], {})
    by_role = bool(document["float_digits_by_role"])
    return Catalog(
        database=database,
        bound=tuple(bound),
        unbound=tuple(unbound),
        relations=relations,
        links=links,
        names=_names(relations, links, rules),
        volatile=frozenset(document["volatile"]),
        harmless=frozenset(document["harmless"]),
        float_digits_certain=answer.float_digits is True and not by_role,
        float_digits_by_role=by_role,
        started=document["started"],
        digest=answer.digest,
    )


def _names(
    relations: Mapping[int, Relation], links: Mapping[int, object], rules: Sequence[TableRule]
) -> dict[str, tuple[int, ...]]:
    """``Catalog.names``. A rule's table is in it even if there is no such table yet, or it cannot be captured."""
    names: dict[str, tuple[int, ...]] = {rule.table: () for rule in rules}
    linked = names.keys() | {relations[oid].name for oid in links}
    for relation in relations.values():
        if relation.name in linked:
            names[relation.name] = (*names.get(relation.name, ()), relation.oid)
    return names


def bind(rule: TableRule, relation: Relation | None) -> BoundRule | str:
    """``rule`` bound to ``relation``, or the reason in words why its rows cannot be captured."""
    label = f"{rule.schema}.{rule.table}"
    if relation is None:
        return f"table {label} does not exist"
    if relation.kind not in "rp":
        kind = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}.get(relation.kind, "not a table")
        return f"{label} is {kind}; name the table itself"
    for column in (*rule.key, *rule.value):
        if column not in relation.columns:
            known = ", ".join(relation.columns)
            return f"column {column!r} of table {label} does not exist; its columns are {known}"
    if relation.inherited:
        return f"{label} has inheritance children, so no unique index covers all its rows"
    if not any(columns <= set(rule.key) for columns in relation.unique):
        key = ", ".join(rule.key)
        return f"no unique index of {label} covers the key ({key}); two rows could share one Redis key"
    return BoundRule(
        rule,
        relation,
        tuple(relation.columns[name] for name in rule.key),
        tuple(relation.columns[name] for name in rule.value),
    )


def _bind_all(
    rules: Sequence[TableRule], by_name: Mapping[tuple[str, str], Relation]
) -> tuple[list[BoundRule], list[tuple[TableRule, str]]]:
    """The rules that can be captured, in their order, and the others with the reason.

    Two rules that can make the same Redis key would overwrite each other's values. Whether they can depends on the key
    columns' types, which only the catalog knows. The rule that is later in the configuration is then not captured.
    """
    bound: list[BoundRule] = []
    unbound: list[tuple[TableRule, str]] = []
    templates: list[KeyTemplate] = []
    for rule in rules:
        outcome = bind(rule, by_name.get((rule.schema, rule.table)))
        if isinstance(outcome, str):
            unbound.append((rule, outcome))
            continue
        template = typed_template(outcome)
        earlier = next((one for one, other in zip(bound, templates, strict=True) if template.overlaps(other)), None)
        if earlier is not None:
            unbound.append((rule, _why_overlapping(rule, earlier.rule)))
            continue
        bound.append(outcome)
        templates.append(template)
    return bound, unbound


def typed_template(bound: BoundRule) -> KeyTemplate:
    """The rule's key template, told what the key columns' types are."""
    return bound.rule.template.with_types({column.name: column.base_oid for column in bound.key})


def _why_overlapping(rule: TableRule, earlier: TableRule) -> str:
    return (
        f'a key of "{rule.template.text}" can also be one of "{earlier.template.text}" ({earlier.label}), '
        "so one row's value could stand under another's key; begin one redis_key differently"
    )


class Types:
    """The types of the configured tables' columns, and all types within them."""

    def __init__(self, entries: Sequence[dict[str, Any]]) -> None:
        self.by_oid = {entry["oid"]: entry for entry in entries}

    def base(self, oid: int) -> dict[str, Any]:
        """The type under a domain over domains; the type itself when it is none."""
        entry = self.by_oid[oid]
        while entry["kind"] == "d":
            entry = self.by_oid[entry["base"]]
        return entry

    def inner(self, oid: int) -> frozenset[int] | None:
        """See ``Column.inner``: None for a type that contains no other."""
        leaves: set[int] = set()
        waiting, seen = list(self._within(self.by_oid[oid])), {oid}
        if not waiting:
            return None
        while waiting:
            found = waiting.pop()
            if found in seen:
                continue
            seen.add(found)
            entry = self.by_oid[found]
            within = self._within(entry)
            waiting += within
            if not within:
                leaves.add(ANYENUM if entry["kind"] == "e" else found)
        return frozenset(leaves)

    @staticmethod
    def _within(entry: dict[str, Any]) -> list[int]:
        direct = (entry["base"], entry["element"], entry["subtype"])
        return [oid for oid in direct if oid] + list(entry["attributes"])


def _edge(entry: dict[str, Any]) -> Edge:
    on_update = entry["on_update"]
    return Edge(
        target=entry["target"],
        written=entry["written"],
        type=LinkType(entry["how"]),
        on_delete=entry["on_delete"],
        on_update=None if on_update is None else frozenset(on_update),
    )


def _relation(entry: dict[str, Any], types: Types) -> Relation:
    return Relation(
        oid=entry["oid"],
        schema=entry["schema"],
        name=entry["name"],
        kind=entry["kind"],
        columns={column["name"]: _column(column, types) for column in entry["columns"]},
        unique=tuple(frozenset(columns) for columns in entry["unique"]),
        triggers=frozenset(event for bits in entry["triggers"] for bit, event in _EVENTS if bits & bit),
        rewritten=entry["rewritten"],
        inherited=entry["inherited"],
        partition=entry["partition"],
        rules=tuple((oid, version) for oid, version in entry["rules"]),
    )


def _column(entry: dict[str, Any], types: Types) -> Column:
    own = types.by_oid[entry["type"]]
    base = types.base(entry["type"])
    return Column(
        name=entry["name"],
        number=entry["number"],
        type_oid=entry["type"],
        type_modifier=entry["modifier"],
        type_kind=own["kind"],
        base_oid=base["oid"],
        element_oid=base["element"],
        generated=entry["generated"],
        deterministic=entry["deterministic"],
        base_kind=base["kind"],
        base_name=base["name"],
        inner=types.inner(base["oid"]),
    )


def _with_descendants(relation: Relation, relations: Mapping[int, Relation], edges: Sequence[Edge]) -> Relation:
    """A write on a partitioned table fires its partitions' own triggers and rules too."""
    triggers, rewritten = set(relation.triggers), relation.rewritten
    waiting, seen = [relation.oid], {relation.oid}
    while waiting:
        parent = waiting.pop()
        for edge in edges:
            if edge.type is LinkType.CHILD and edge.target == parent and edge.written not in seen:
                seen.add(edge.written)
                waiting.append(edge.written)
                triggers |= relations[edge.written].triggers
                rewritten = rewritten or relations[edge.written].rewritten
    return Relation(
        oid=relation.oid,
        schema=relation.schema,
        name=relation.name,
        kind=relation.kind,
        columns=relation.columns,
        unique=relation.unique,
        triggers=frozenset(triggers),
        rewritten=rewritten,
        inherited=relation.inherited,
        partition=relation.partition,
        rules=relation.rules,
    )
