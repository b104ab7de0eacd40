"""``[[table]]`` entries become ``TableRule``s: defaults filled in, and entries that would get in each other's way
refused."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cache.keys import KeyTemplate
from cache.rules import TableRule
from proxy.config import units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.config.sections import TableSection

NO_TABLES = "no [[table]] is configured: Rowtap relays and captures nothing"

Found = tuple[tuple[str | int, ...], str]
"""Where in the configuration, and what is wrong."""


class RuleError(Exception):
    """Entries that cannot be used."""

    def __init__(self, found: list[Found]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


def build(entries: Sequence[TableSection], default_database: str | None) -> tuple[list[TableRule], list[str]]:
    """Rules in the entries' order, and warnings. Raises ``RuleError`` with everything found wrong."""
    if not entries:
        return [], [NO_TABLES]
    found: list[Found] = []
    rules: list[TableRule] = []
    shared = Counter(_place(entry, default_database) for entry in entries)
    for number, entry in enumerate(entries):
        database, schema, table = _place(entry, default_database)
        if not database:
            found.append((("table", number), 'needs a database: set database = "…" in [postgres], or here'))
            continue
        try:
            template = _template(entry, (database, schema, table))
        except ValueError as error:
            found.append((("table", number, "redis_key"), str(error)))
            continue
        label = f"{database}.{schema}.{table}"
        if shared[database, schema, table] > 1:
            # Named by its keys, so that moving entries about in the file renames nothing.
            label += f"#{template.text}"
        rules.append(
            TableRule(
                database=database,
                schema=schema,
                table=table,
                key=entry.key,
                value=entry.value,
                template=template,
                format=entry.value_format,
                ttl=None if entry.ttl is None else max(1, round(entry.ttl * 1000)),
                ttl_jitter=entry.ttl_jitter,
                max_rows=entry.max_rows,
                label=label,
            )
        )
    if not found:
        found, warnings = _meeting(rules)
    if found:
        raise RuleError(found)
    return rules, warnings


def _place(entry: TableSection, default_database: str | None) -> tuple[str, str, str]:
    return (entry.database or default_database or "", *units.table_name(entry.name))


def _template(entry: TableSection, place: tuple[str, str, str]) -> KeyTemplate:
    database, schema, table = place
    if entry.redis_key is None:
        return KeyTemplate.default(database=database, schema=schema, table=table, key_columns=entry.key)
    return KeyTemplate.parse(entry.redis_key, database=database, schema=schema, table=table, key_columns=entry.key)


def _meeting(rules: Sequence[TableRule]) -> tuple[list[Found], list[str]]:
    """Entries that make the same keys would overwrite each other's values: refused. Keys that meet only for some texts
    of a key column deserve a warning; whether they can is decided by the columns' types, which the database knows."""
    found: list[Found] = []
    warnings: list[str] = []
    for number, rule in enumerate(rules):
        for earlier in rules[:number]:
            if rule.template.pattern == earlier.template.pattern:
                text = f"makes the same keys as the entry for {earlier.schema}.{earlier.table}"
                found.append((("table", number, "redis_key"), f"{text}: give one of them a redis_key of its own"))
            elif rule.template.overlaps(earlier.template):
                warnings.append(
                    f"keys of {earlier.label} and {rule.label} can meet if a key column is text: "
                    f'"{earlier.template.text}" and "{rule.template.text}" should begin differently'
                )
    return found, warnings
