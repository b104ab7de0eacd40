"""``rowtap explain``: where the statements and the catalog come from, and how the explanations are printed."""

from __future__ import annotations

import codecs
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import typer

from cache.capture.explain import explain
from cache.catalog.tables import Scope
from proxy.commands import lookup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cache.capture.explain import Explanation
    from cache.catalog.tables import Catalog
    from proxy.config.load import Config

ASSUMPTION = (
    "no login given, so each configured table is assumed to have text columns and no triggers, rules, views or "
    "foreign keys; --dsn asks the database"
)


def read(statements: Sequence[str], file: Path | None, standard_input: BinaryIO) -> list[bytes]:
    """The texts to explain, each of one or several statements: the arguments, or the file, or standard input.

    Raises OSError for a file that cannot be read. A terminal as standard input is not read.
    """
    if statements:
        return [os.fsencode(statement) for statement in statements]
    if file is not None and str(file) != "-":
        # As psql does, skip the byte order mark that some editors begin a file with.
        return [file.read_bytes().removeprefix(codecs.BOM_UTF8)]
    if file is None and standard_input.isatty():
        return []
    return [standard_input.read()]


def run(
    config: Config,
    texts: Sequence[bytes],
    *,
    dsn: str | None,
    offline: bool,
    database: str | None,
    search_path: tuple[str, ...],
    as_json: bool,
) -> int:
    """Print one explanation for each statement; the exit status."""
    database = database or config.postgres.database or next((rule.database for rule in config.rules()), "")
    try:
        catalog = _catalog(config, database, None if offline else dsn, offline=offline)
    except lookup.LookupFailure as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    for rule, reason in catalog.unbound:
        typer.echo(f"warning: {rule.label} is not captured: {reason}", err=True)
    # "$user" is the schema of the client's user, who is not known here.
    scope = Scope(search_path=tuple(schema for schema in search_path if schema != "$user"))
    explained = [(text, explanation) for text in texts for explanation in explain(text, catalog, scope)]
    numbered = [(text, _numbered(explanation, number)) for number, (text, explanation) in enumerate(explained, 1)]
    if as_json:
        typer.echo(json.dumps([explanation.to_json() for _, explanation in numbered], indent=2, ensure_ascii=False))
    else:
        _print(numbered, with_text=len(texts) > 1)
    return 0


def _catalog(config: Config, database: str, dsn: str | None, *, offline: bool) -> Catalog:
    rules = [rule for rule in config.rules() if rule.database == database]
    if not rules:
        typer.echo(f"warning: no [[table]] is configured for database {database!r}", err=True)
        return lookup.assume_catalog(database, rules)
    if not offline and lookup.has_login(dsn):
        return lookup.fetch_catalog(config.postgres, dsn, database, rules)
    if not offline:
        typer.echo(f"note: {ASSUMPTION}", err=True)
    return lookup.assume_catalog(database, rules)


def _numbered(explanation: Explanation, number: int) -> Explanation:
    """With its number among the statements of all texts."""
    inner = None if explanation.inner is None else _numbered(explanation.inner, number)
    return replace(explanation, number=number, inner=inner)


def _print(numbered: Sequence[tuple[bytes, Explanation]], *, with_text: bool) -> None:
    printed = None
    for text, explanation in numbered:
        if with_text and text is not printed:
            typer.secho(" ".join(text.decode(errors="replace").split()), dim=True)
            printed = text
        title, *rest = explanation.lines()
        typer.secho(title, bold=True)
        for line in rest:
            typer.echo(line)
