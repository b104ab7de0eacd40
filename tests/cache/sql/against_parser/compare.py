"""Our reading of a text beside PostgreSQL's: every difference that could leave a wrong key, or lose an Evict or Flush.

What we call unread is never wrong, as long as it says that it may write where PostgreSQL's parser sees a write. Beyond
that our reading may be careful (name a constant no constant, a harmless command unknown), but never careless.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from postgast import PgQueryError
from postgast import pg_query_pb2 as pb

from cache.sql.lexer import NAME, NUMBER, OPERATOR, PARAMETER, STRING, WORD
from cache.sql.plans import Operand, OperandSource, Reason
from cache.sql.statements import Equality, Statement, TableReference, Write
from tests.cache import catalogs
from tests.cache.sql.against_parser import kinds, reading, tree
from tests.cache.sql.against_parser.conditions import ColumnEquality, Constant, constant, inner, words
from tests.cache.sql.against_parser.lexemes import Lexeme, lexemes
from tests.cache.sql.against_parser.records import AnalysisError, Name, Occurrence, ParsedStatement, Written


class Verdict(NamedTuple):
    """What came of one text."""

    refused: bool = False
    """PostgreSQL's parser does not take it, so it does nothing, whatever we read in it."""
    statements: int = 0
    unread: int = 0
    """How many of them we cannot read although PostgreSQL can."""
    differences: tuple[str, ...] = ()


def is_taken(text: str) -> bool:
    """PostgreSQL takes the text."""
    try:
        tree.statements(text)
    except (PgQueryError, AnalysisError):
        return False
    return True


def judge(text: str) -> Verdict:
    """Compares the two readings of one text."""
    try:
        theirs = tree.statements(text)
        found = lexemes(text)
    except (PgQueryError, AnalysisError):
        return Verdict(refused=True)
    try:
        ours = reading.readings(text, found)
    except reading.LexemesError as error:
        return Verdict(False, len(theirs), 0, (str(error),))
    unread = len(theirs)
    differences: list[str] = list(_lexemes(reading.tokens(text), found))
    if not ours:
        differences += _opaque(text, theirs)
    for one in ours:
        differences += [f"{one.way}: {what}" for what in _Comparison(one, found).differences(theirs)]
        unread = sum(is_unread(statement) for _, statement in one.statements)
    return Verdict(False, len(theirs), unread, tuple(differences))


def _opaque(text: str, theirs: Sequence[ParsedStatement]) -> Iterator[str]:
    """A text that we cannot read at all must be taken for a write on each table it writes."""
    for name in {one.target.name for statement in theirs for one in statement.writes}:
        plans = catalogs.plans(text, catalogs.catalog(catalogs.relation(1, name, catalogs.USERS_COLUMNS)))[0]
        if not any(plan.writes for plan in plans):
            yield f"opaque, and not taken for a write on {name}"
    for name in {made.name for statement in theirs for made, temporary in statement.created if temporary}:
        plans = catalogs.plans(text, catalogs.catalog(catalogs.relation(1, name, catalogs.USERS_COLUMNS)))[0]
        if not any(name in plan.shadows for plan in plans):
            yield f"opaque, and {name} is not known to be temporary"


def is_unread(statement: Statement) -> bool:
    return statement.unread or (statement.inner is not None and is_unread(statement.inner))


def _lexemes(ours: Sequence[Any] | None, theirs: Sequence[Lexeme]) -> Iterator[str]:
    for place, (one, other) in enumerate(zip(ours or (), theirs, strict=False)):
        spelled = other.kind in (WORD, NAME, PARAMETER, OPERATOR, NUMBER) and other.text != ""
        if one.kind != other.kind or (spelled and one.text != other.text) or one.national != other.national:
            yield f"lexeme {place}: {one} for {other}"
    if ours is not None and len(ours) != len(theirs):
        yield f"{len(ours)} lexemes for {len(theirs)}"


class _Comparison:
    """One way of reading a text beside PostgreSQL's."""

    def __init__(self, ours: reading.Reading, found: Sequence[Lexeme]) -> None:
        self._ours = ours
        self._lexemes = found
        self._starts = [lexeme.start for lexeme in found]

    def differences(self, theirs: Sequence[ParsedStatement]) -> Iterator[str]:
        lengths = [length for length, _ in self._ours.statements]
        expected = [self._length(one) for one in theirs]
        if lengths != expected:
            yield f"statements of {lengths} lexemes for {expected}"
            return
        constants = self._constants(theirs)
        yield from self._literals(constants)
        for (_, statement), one in zip(self._ours.statements, theirs, strict=True):
            for what in self._statement(statement, one):
                yield f"{one.kind}: {what}"

    def _length(self, one: ParsedStatement) -> int:
        return sum(one.start <= lexeme.start < one.end for lexeme in self._lexemes)

    # Literals

    def _constants(self, theirs: Sequence[ParsedStatement]) -> dict[int, Any]:
        """The constants of the parse trees, by the lexemes they are."""
        found: dict[int, Any] = {}
        for one in theirs:
            waiting = [one.node]
            while waiting:
                node = waiting.pop()
                if isinstance(node, pb.A_Const) and not node.isnull and node.location >= 0:
                    place = self._place(node.location)
                    if place is not None and node.WhichOneof("val") in ("sval", "ival", "fval"):
                        found[place] = node
                else:
                    waiting += tree.children(node)
        return found

    def _place(self, location: int) -> int | None:
        """Which lexeme the constant at ``location`` is: that one, or the first after its minus sign; None for a
        word."""
        place = self._at(location)
        while self._lexemes[place].text in ("-", "("):
            place += 1
        return place if self._lexemes[place].kind in (STRING, NUMBER) else None

    def _at(self, location: int) -> int:
        return bisect_right(self._starts, location) - 1

    def _literals(self, constants: dict[int, Any]) -> Iterator[str]:
        for slot, place in self._ours.places.items():
            value, kind = self._ours.spellings[slot]
            if kind.endswith("[]"):
                continue
            lexeme = self._lexemes[place]
            if lexeme.kind != (STRING if kind == "string" else NUMBER):
                yield f"literal {slot}: {kind} for {lexeme}"
            elif kind != "string" and lexeme.text.encode() != value:
                yield f"literal {slot}: {value!r} for {lexeme.text}"
            elif kind == "string" and place in constants and constants[place].sval.sval.encode() != value:
                yield f"literal {slot}: {value!r} for {constants[place].sval.sval!r}"
            elif kind == "integer" and not lexeme.text.isdigit():
                yield f"literal {slot}: integer for {lexeme.text}"

    def same(self, ours: Operand | None, theirs: Constant | None) -> bool:
        """Ours is none, or is theirs."""
        if ours is None:
            return True
        if theirs is None or ours.source.value != theirs.source:
            return False
        if ours.cast != theirs.cast:
            return False
        if ours.source is OperandSource.PARAMETER:
            return ours.index == theirs.place - 1
        if ours.source is OperandSource.LITERAL:
            # The parser makes one constant of a number and its minus sign, whose place then is the constant's.
            negative = theirs.negative or self._lexemes[self._at(theirs.place)].text == "-"
            return self._ours.places[ours.index] == self._place(theirs.place) and ours.negative == negative
        return True

    # Statements

    def _statement(self, ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
        yield from kinds.differences(ours, theirs)
        if ours.inner is not None:
            yield from self._statement(ours.inner, tree.statement(inner(theirs.node.query)))
            return
        if ours.unread:
            yield from _unread(ours, theirs)
            return
        if theirs.kind in kinds.PLAIN:
            yield from self._plain(ours, theirs)
        elif theirs.kind == "ExecuteStmt":
            given = [constant(inner(one)) for one in theirs.node.params]
            if not all(map(self.same, ours.arguments, given)):
                yield f"arguments {ours.arguments} for {given}"

    def _plain(self, ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
        if theirs.kind == "ExplainStmt" and not tree.is_analyzed(theirs.node):
            return  # it is not run, whatever we think of it
        names, functions = _names(ours.names), _names(ours.functions)
        names -= {Name(None, word) for word in _FUNCTIONS_WITHOUT_PARENTHESES} - theirs.names
        if names != theirs.names and not theirs.created:
            yield f"names {sorted(map(str, names))} for {sorted(map(str, theirs.names))}"
        # What the parser makes of SQL's own constructs are functions of pg_catalog, which the text does not name.
        is_named = any(lexeme.text == "pg_catalog" for lexeme in self._lexemes)
        if not {one for one in theirs.functions if one.schema != "pg_catalog" or is_named} <= functions:
            yield f"calls {sorted(map(str, functions))} for {sorted(map(str, theirs.functions))}"
        if theirs.kind != "ExplainStmt":
            yield from self._parameters(ours, theirs)
            yield from self._references(ours.references, theirs.surfacing)
        yield from self._writes(ours.writes, theirs.writes)
        settings = {name for name, _, _ in ours.settings}
        if theirs.settings and "*" not in settings and not settings >= set(theirs.settings):
            yield f"settings {ours.settings} for {theirs.settings}"

    def _parameters(self, ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
        if Counter(ours.parameters) != theirs.parameters:
            yield f"parameters {dict(ours.parameters)} for {dict(theirs.parameters)}"

    def _references(self, ours: Sequence[TableReference], theirs: Sequence[Occurrence]) -> Iterator[str]:
        found = Counter(Name(one.name.schema, one.name.name) for one in ours for _ in range(one.uses))
        shown = Counter(one.name for one in theirs)
        for name in found | shown:
            if min(found[name], 2) < min(shown[name], 2):
                yield f"{name.name} comes {found[name]} times into the result, not {shown[name]}"
            if found[name] != 1 or shown[name] != 1:
                continue
            reference = next(one for one in ours if Name(one.name.schema, one.name.name) == name)
            occurrence = next(one for one in theirs if one.name == name)
            if occurrence.nullable and not reference.nullable:
                yield f"{name.name} is on the null side of an outer join"
            blocks = {Reason.SET_OPERATION: occurrence.set_operation, Reason.GROUPING_SETS: occurrence.grouping_sets}
            if any(blocks.values()) and reference.no_fill is None:
                yield f"{name.name} passes through {[block.value for block, is_so in blocks.items() if is_so]}"
            yield from self._equalities(reference.equalities, occurrence)

    def _equalities(self, equalities: Sequence[Equality], occurrence: Occurrence) -> Iterator[str]:
        for equality in equalities:
            if all(None in one for one in equality.rows) and equality.array is None and len(equality.columns) == 1:
                continue
            if not any(self._says(one, equality) for one in occurrence.equalities if not occurrence.renamed):
                yield f"{occurrence.name.name}: {equality} is not said"

    def _says(self, theirs: ColumnEquality, ours: Equality) -> bool:
        """Theirs says all that is claimed in ours; a column with an expression among its values claims nothing."""
        if ours.array is not None:
            # A long list is an array to us.
            entries = theirs.rows[0][0] if theirs.rows else theirs.array
            return theirs.columns == ours.columns and self.same(ours.array, entries)
        claimed = [place for place in range(len(ours.columns)) if all(one[place] is not None for one in ours.rows)]
        if not claimed:
            return True
        if len(ours.rows) != len(theirs.rows):
            return False
        return all(
            any(
                all(self.same(one[place], other[there]) for one, other in zip(ours.rows, theirs.rows, strict=True))
                for there, column in enumerate(theirs.columns)
                if column == ours.columns[place]
            )
            for place in claimed
        )

    def _writes(self, ours: Sequence[Write], theirs: Sequence[Written]) -> Iterator[str]:
        found = [(one.verb.value, Name(one.target.schema, one.target.name)) for one in ours]
        shown = [(one.verb, one.target) for one in theirs]
        if found != shown:
            yield f"writes {found} for {shown}"
            return
        for one, other in zip(ours, theirs, strict=True):
            for what in self._write(one, other):
                yield f"{other.verb} {other.target.name}: {what}"

    def _write(self, ours: Write, theirs: Written) -> Iterator[str]:
        if theirs.occurrence is None:
            return
        yield from self._equalities(ours.equalities, theirs.occurrence)
        columns = [column for column, _ in theirs.assignments]
        if [column for column, _ in ours.assignments] != columns:
            yield f"sets {ours.assignments} for {columns}"
        elif not all(
            map(self.same, (value for _, value in ours.assignments), (value for _, value in theirs.assignments))
        ):
            yield f"assigns {ours.assignments} for {theirs.assignments}"
        if theirs.verb == "INSERT":
            yield from self._insert(ours, theirs)
        if (ours.returning and not theirs.returning) or (theirs.returning and not ours.returning and ours.counted):
            yield f"returning {ours.returning} for {theirs.returning}"
        if ours.returning and ((theirs.old and not ours.old) or (theirs.new and not ours.new)):
            yield f"returns old: {theirs.old}, new: {theirs.new}"
        if ours.counted and not theirs.counted:
            yield "the row count is not its own"
        if theirs.deletes and not ours.deletes:
            yield "may delete"
        others = {Name(one.name.schema, one.name.name) for one in ours.other_references}
        if not {one.name for one in theirs.others} <= others:
            yield f"returns columns of {theirs.others}, not only of {others}"

    def _insert(self, ours: Write, theirs: Written) -> Iterator[str]:
        if list(ours.columns or ()) != (theirs.columns or []) or (ours.columns is None) != (theirs.columns is None):
            yield f"columns {ours.columns} for {theirs.columns}"
        if ours.rows is not None:
            same = theirs.rows is not None and len(ours.rows) == len(theirs.rows)
            same = same and all(
                len(one) == len(other) and all(map(self.same, one, other))
                for one, other in zip(ours.rows, theirs.rows or (), strict=True)
            )
            if not same:
                yield f"rows {ours.rows} for {theirs.rows}"
        if ours.conflict.value != theirs.conflict:
            yield f"on conflict {ours.conflict.value} for {theirs.conflict}"
        if ours.conflict_columns is not None and ours.conflict_columns != theirs.arbiter:
            yield f"conflict columns {ours.conflict_columns} for {theirs.arbiter}"


_FUNCTIONS_WITHOUT_PARENTHESES = words(
    "user current_user session_user system_user current_role current_catalog current_schema current_date current_time "
    "current_timestamp localtime localtimestamp"
)
"""What stands in a FROM clause as a relation does."""


def _names(found: Any) -> set[Name]:
    return {Name(one.schema, one.name) for one in found}


def _unread(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    """A statement that we cannot read must be taken for a write if it is one, on each table it names."""
    targets = {one.target.name for one in theirs.writes}
    if targets and not ours.any_table and not (ours.writing and targets <= ours.identifiers):
        yield f"unread, and not taken for a write on {targets}"
    created = {name.name for name, _ in theirs.created}
    known = {name.name for name in ours.created} | (set(ours.identifiers) if ours.definition else set())
    if not created <= known and not ours.ddl and not ours.any_table:
        yield f"unread, and {created} are not known to be made"
    temporary = {name.name for name, temporary in theirs.created if temporary}
    if not temporary <= set(ours.temporary):
        yield f"unread, and {temporary} are not known to be temporary"
