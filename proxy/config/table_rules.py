"""``[[table]]`` entries become ``TableRule``s: defaults are filled in, and two entries that make the same keys are
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

Problem = tuple[tuple[str | int, ...], str]
"""Where in the configuration, and what is wrong."""


class RuleError(Exception):
    """Entries that cannot be used."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = problems


def build_rules(entries: Sequence[TableSection], default_database: str | None) -> tuple[list[TableRule], list[str]]:
    """Rules in the entries' order, and warnings. Raises ``RuleError`` with all problems."""
    if not entries:
        return [], [NO_TABLES]
    problems: list[Problem] = []
    rules: list[TableRule] = []
    entries_of_table = Counter(_table_of(entry, default_database) for entry in entries)
    for number, entry in enumerate(entries):
        database, schema, table = _table_of(entry, default_database)
        if not database:
            problems.append((("table", number), 'needs a database: set database = "…" in [postgres], or here'))
            continue
        try:
            template = _template(entry, (database, schema, table))
        except ValueError as error:
            problems.append((("table", number, "redis_key"), str(error)))
            continue
        label = f"{database}.{schema}.{table}"
        if entries_of_table[database, schema, table] > 1:
            # Told apart by their keys, not by their numbers: another order of the entries renames nothing.
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
    if not problems:
        problems, warnings = _compare_keys(rules)
    if problems:
        raise RuleError(problems)
    return rules, warnings


def _table_of(entry: TableSection, default_database: str | None) -> tuple[str, str, str]:
    return (entry.database or default_database or "", *units.table_name(entry.name))


def _template(entry: TableSection, name: tuple[str, str, str]) -> KeyTemplate:
    database, schema, table = name
    if entry.redis_key is None:
        return KeyTemplate.default(database=database, schema=schema, table=table, key_columns=entry.key)
    return KeyTemplate.parse(entry.redis_key, database=database, schema=schema, table=table, key_columns=entry.key)


def _compare_keys(rules: Sequence[TableRule]) -> tuple[list[Problem], list[str]]:
    """Problems and warnings. Two rules that make the same keys would overwrite each other's values: a problem. If they
    make the same key for some texts of a key column only, it is a warning: the columns' types, which the database
    knows, decide whether there can be such texts."""
    problems: list[Problem] = []
    warnings: list[str] = []
    for number, rule in enumerate(rules):
        for earlier in rules[:number]:
            if rule.template.pattern == earlier.template.pattern:
                text = f"makes the same keys as the entry for {earlier.schema}.{earlier.table}"
                problems.append((("table", number, "redis_key"), f"{text}: give one of them a redis_key of its own"))
            elif rule.template.overlaps(earlier.template):
                warnings.append(
                    f"{earlier.label} and {rule.label} can make the same key if a key column is text: "
                    f'"{earlier.template.text}" and "{rule.template.text}" should begin differently'
                )
    return problems, warnings
