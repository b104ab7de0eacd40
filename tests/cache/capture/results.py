"""Results as PostgreSQL describes them, and what is read from their rows, for the tests of this folder."""

from cache.capture.arguments import Arguments
from cache.capture.rows import RowCollector, row_plans
from cache.rules import ValueFormat
from cache.values.loading import CANONICAL
from protocol.backend import FieldDescription
from tests.cache.catalogs import USERS, USERS_COLUMNS, bound, catalog, plan, relation

ID, NAME = FieldDescription(b"id", 1, 1, 23, 4), FieldDescription(b"name", 1, 2, 25)
EMAIL = FieldDescription(b"email", 1, 3, 1043)
OF_ANOTHER_TABLE = FieldDescription(b"id", 2, 1, 23, 4)

TABLE = relation(1, "users", USERS_COLUMNS)
HASH = catalog(TABLE, bound(TABLE, value=("name", "email"), style=ValueFormat.HASH))
"""``users`` with a rule in hash format, of two value columns."""
PAIR = catalog(TABLE, bound(TABLE, key=("id", "email")))
"""``users`` with a rule whose key has two columns."""
SEEN = FieldDescription(b"seen", 1, 5, 1184, 8)
DATED = catalog(TABLE, bound(TABLE, value=("seen",)))
"""``users`` with a rule whose value is a timestamptz: only texts of a known form are certain."""
DATED_HASH = catalog(TABLE, bound(TABLE, value=("name", "seen"), style=ValueFormat.HASH))
NO_ARGUMENTS = Arguments(())


def row_plan(text, *fields, where=USERS, formats=None):
    """The one plan for the rows of a statement's result."""
    found, refused = row_plans(plan(text, where), fields, formats or [0] * len(fields), CANONICAL)
    assert not refused, refused
    (one,) = found
    return one


def collect(text, fields, rows, *, where=USERS, formats=None, arguments=NO_ARGUMENTS):
    """A collector to which these rows were added."""
    collector = RowCollector(row_plan(text, *fields, where=where, formats=formats), arguments)
    for row in rows:
        collector.add(row)
    return collector
