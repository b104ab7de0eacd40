"""Writes a statement's tokens so that a parser made for many dialects reads them as PostgreSQL does.

Every identifier is quoted, so only PostgreSQL's own key words, where its grammar wants them, can be key words to the
parser; what is called like a function bears ``CALLED``, so it keeps its name; constants are their slots' numbers;
operators with no bearing on a plan become one neutral operator; comments, ``U&""``, dollar quotes and escapes are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.builtin_types import TABLE
from cache.sql.lexer import BIT_STRING, MARK, NAME, NUMBER, OPERATOR, PARAMETER, STRING, WORD, LexicalError, Token
from cache.sql.plans import Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CALLED = "\x01"
"""Stands before a name that a parenthesis follows, or that is a type the parser has other ideas about."""
LIST = "L"
"""Stands before the slot of a long IN list."""
CURRENT_OF = CALLED + "current of"
"""The function that ``CURRENT OF cursor`` is written as."""
LONG_LIST = 16
MANY_ROWS = 64
"""Further rows of constants in VALUES are left out."""
MAX_DEPTH = 80
"""Nesting beyond this is not parsed: the parser recurses."""
MAX_BRACKETS = 8
"""Nested ``[``: the parser's time doubles with each. PostgreSQL's arrays have at most 6 dimensions."""
MAX_SUBSCRIPTS = 40
"""``a[1][2]…``: the parser's time grows with the cube."""
MAX_PARSED = 6_000
"""Lexemes a parser is given at most."""


def words(text: str) -> frozenset[str]:
    """The words of ``text``, as a set."""
    return frozenset(text.split())


_ALWAYS = words(
    # reserved
    "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create "
    "current_catalog current_date current_role current_time current_timestamp current_user default deferrable desc "
    "distinct do else end except false fetch for foreign from grant group having in initially intersect into lateral "
    "leading limit localtime localtimestamp not null offset on only or order placing primary references returning "
    "select session_user some symmetric system_user table then to trailing true union unique user using variadic when "
    "where window with "
    # reserved, may name functions or types
    "collation cross full ilike inner is isnull join left like natural notnull outer overlaps right similar "
    "tablesample "
    # what the grammar of queries and DML needs besides
    "between by conflict delete escape exclude following insert locked matched merge nothing nowait ordinality over "
    "preceding recursive set skip ties unbounded update without"
)
_BEFORE_PARENTHESIS = words(
    "coalesce cube exists extract filter greatest grouping least none normalize nullif overlay position rollup row "
    "sets substring treat trim values xmlconcat xmlelement xmlexists xmlforest xmlparse xmlpi xmlroot xmlserialize "
    "json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table "
    "json_value"
)
_TYPES = frozenset(word for row in TABLE for word in row.key_words if " " not in word)
"""Types that the grammar itself names."""
_AFTER = {
    "values": {"default"},
    "key": {"no", "for"},
    "share": {"for", "key"},
    "first": {"nulls", "fetch", "breadth", "depth"},
    "last": {"nulls"},
    "next": {"fetch"},
    "of": {"update", "share"},
    "zone": {"time"},
    "time": {"at", "with", "without"},
    "materialized": {"as", "not"},
    "source": {"by"},
    "target": {"by"},
    "system": {"overriding"},
    "varying": {"character", "char", "bit", "nchar"},
    "precision": {"double"},
    "local": {"at"},
    "row": {"current", "next", "first"},
    "rows": {"next", "first"},
    "group": {"within"},
    "others": {"no"},
    "current": {"between", "and", "exclude", "rows", "range", "groups"},
}
_BEFORE = {
    "nulls": {"first", "last"},
    "grouping": {"sets"},
    "at": {"time", "local"},
    "partition": {"by"},
    "within": {"group"},
    "no": {"key", "others"},
    "double": {"precision"},
    "rows": {"between", "unbounded", "current", "with", "only"},
    "row": {"with", "only"},
    "range": {"between", "unbounded", "current"},
    "groups": {"between", "unbounded", "current"},
    "search": {"breadth", "depth"},
    "breadth": {"first"},
    "depth": {"first"},
}
_KNOWN_TYPES = frozenset(row.name for row in TABLE if row.known_to_parser)
_INTERVAL_FIELDS = words("year month day hour minute second")
_COMPARISONS = words("= < > <= >= <> + - * / % ^")
_NEUTRAL = "<->"
_PREFIX = "~"
# A word that ends an operand: an operator after it has a left side.
_ENDS_OPERAND = words("null true false end default current_date current_time current_timestamp current_user")


def number_literals(found: Sequence[Token]) -> tuple[list[Token], tuple[Literal, ...]]:
    """The tokens with a slot on each literal whose value is certain, and the literals."""
    literals: list[Literal] = []
    result: list[Token] = []
    position, count = 0, len(found)
    while position < count:
        token = found[position]
        if token.kind == WORD and token.text == "in" and (end := _long_list(found, position + 1)):
            literals.append(_array(found[position + 2 : end]))
            result += [token, found[position + 1]]
            result += [Token(STRING, "", slot=len(literals) - 1, many=True), found[end]]
            position = end + 1
            continue
        if token.kind == STRING and token.certain and not token.national:
            literals.append(Literal(token.text.encode(), "string"))
            token = token._replace(slot=len(literals) - 1)
        elif token.kind == NUMBER and not set("_xXoO").intersection(token.text):
            kind = "integer" if token.text.isdigit() else "decimal"
            literals.append(Literal(token.text.encode(), kind))
            token = token._replace(slot=len(literals) - 1)
        result.append(token)
        position += 1
    return result, tuple(literals)


def recognise_slots(
    found: Sequence[Token], slot_of: Callable[[str], int | None], list_slot_of: Callable[[str], int | None]
) -> list[Token]:
    """The tokens of a template's text, with a slot on each constant that stands for one."""
    result: list[Token] = []
    for token in found:
        if token.kind in (STRING, NUMBER):
            slot = slot_of(token.text)
            if slot is not None:
                token = token._replace(slot=slot)
            elif (slot := list_slot_of(token.text)) is not None:
                token = token._replace(slot=slot, many=True)
        result.append(token)
    return result


def _long_list(found: Sequence[Token], start: int) -> int:
    """Where the parenthesis at ``start`` closes if it holds a long list of constants of one kind; 0 otherwise."""
    if start >= len(found) or found[start].text != "(" or found[start].kind != MARK:
        return 0
    position, elements, kind = start + 1, 0, -1
    while position < len(found):
        if found[position].kind == OPERATOR and found[position].text == "-":
            position += 1
            if position < len(found) and found[position].kind != NUMBER:
                return 0
        if position + 1 >= len(found):
            return 0
        token, after = found[position], found[position + 1]
        plain = (token.kind == NUMBER and token.text.isdigit()) or (token.kind == STRING and token.certain)
        if not plain or token.national or kind not in (-1, token.kind) or after.kind != MARK:
            return 0
        kind = token.kind
        elements += 1
        if after.text == ")":
            return position + 1 if elements > LONG_LIST else 0
        if after.text != ",":
            return 0
        position += 2
    return 0


def _array(found: Sequence[Token]) -> Literal:
    """The constants as PostgreSQL's text of an array."""
    if any(token.kind == NUMBER for token in found):
        return Literal(("{" + "".join(token.text for token in found) + "}").encode(), "integer[]")
    quoted = (token.text.replace("\\", "\\\\").replace('"', '\\"') for token in found if token.kind == STRING)
    return Literal(('{"' + '","'.join(quoted) + '"}').encode(), "string[]")


def depth(found: Sequence[Token]) -> int:
    """How deep the statement nests: parentheses, brackets, CASE, and runs of prefix operators and NOT."""
    deepest = level = run = subscripts = brackets = 0
    before = ""
    for token in found:
        text = token.text
        if token.kind == MARK:
            if text in "[]":
                brackets += 1 if text == "[" else -1
                subscripts = subscripts + (before == "]") if text == "[" else subscripts
                if subscripts > MAX_SUBSCRIPTS or brackets > MAX_BRACKETS:
                    return MAX_DEPTH + 1
            if text in "([":
                level += 1
            elif text in ")]":
                level -= 1
        elif token.kind == WORD and text in ("case", "end"):
            level += 1 if text == "case" else -1
        run = run + 1 if token.kind == OPERATOR or (token.kind == WORD and text == "not") else 0
        deepest = max(deepest, level + run)
        before = text
    return deepest


def shortened(found: Sequence[Token]) -> list[Token] | None:
    """The tokens of an INSERT with all but the first rows of its VALUES left out; None if there are not many rows, or
    not all of them are plain constants."""
    start = next((i for i, token in enumerate(found) if token.kind == WORD and token.text == "values"), None)
    if start is None or len(found) < 3 * MANY_ROWS:
        return None
    position, rows, cut = start + 1, 0, 0
    while position < len(found) and found[position].kind == MARK and found[position].text == "(":
        position += 1
        while position < len(found) and _is_simple(found[position]):
            position += 1
        if position >= len(found) or found[position].text != ")":
            return None
        position += 1
        rows += 1
        if rows == MANY_ROWS:
            cut = position
        if position < len(found) and found[position].kind == MARK and found[position].text == ",":
            position += 1
            continue
        break
    return [*found[:cut], *found[position:]] if rows > MANY_ROWS else None


def _is_simple(token: Token) -> bool:
    if token.kind in (STRING, NUMBER, PARAMETER, BIT_STRING, WORD):
        return True
    return token.text in (",", "::", "[", "]") if token.kind == MARK else token.text in "+-"


def simplified(found: Sequence[Token]) -> list[Token]:
    """The tokens without what the parser does not know and no plan asks about: TABLESAMPLE, OPERATOR(), ONLY's
    parentheses, OVERRIDING, the time zone in a type's name."""
    result: list[Token] = []
    position, count = 0, len(found)
    while position < count:
        token = found[position]
        next_words = [other.text if other.kind == WORD else "" for other in found[position : position + 3]] + ["", ""]
        called = position + 1 < count and found[position + 1].kind == MARK and found[position + 1].text == "("
        if (next_words[0] in ("with", "without") and next_words[1:3] == ["time", "zone"]) or (
            next_words[0] == "overriding" and next_words[1] in ("system", "user") and next_words[2] == "value"
        ):
            position += 3
        elif next_words[0] == "tablesample":
            position = closing(found, position + 1) + 1
            if position < count and found[position].text == "repeatable":
                position = closing(found, position) + 1
        elif next_words[0] == "operator" and called:
            position = closing(found, position) + 1
            result.append(Token(OPERATOR, _PREFIX))
        elif next_words[0] == "only" and called:
            end = closing(found, position)
            result += [token, *found[position + 2 : end]]
            position = end + 1
        else:
            result.append(token)
            position += 1
    return result


def closing(found: Sequence[Token], start: int) -> int:
    """The position of the parenthesis that closes the first one at or after ``start``."""
    level = 0
    for position in range(start, len(found)):
        token = found[position]
        if token.kind == MARK and token.text == "(":
            level += 1
        elif token.kind == MARK and token.text == ")":
            level -= 1
            if level == 0:
                return position
    raise LexicalError("a parenthesis that is not closed")


def write(found: Sequence[Token]) -> str:
    """The tokens as text for the parser."""
    out: list[str] = []
    calls: list[bool] = []
    count = len(found)
    position = 0
    while position < count:
        token = found[position]
        before = found[position - 1] if position else None
        after = found[position + 1] if position + 1 < count else None
        if token.kind == WORD and token.text == "current" and _is_word(after, "of"):
            out.append(f'"{CURRENT_OF}" ( )')
            position += 3
            continue
        if token.kind == MARK and token.text == "(":
            calls.append(_is_word(before, "cast") or _is_word(before, "treat"))
        elif token.kind == MARK and token.text == ")" and calls:
            calls.pop()
        typed = before is not None and (
            (before.kind == MARK and before.text == "::") or (_is_word(before, "as") and bool(calls) and calls[-1])
        )
        if token.kind in (WORD, NAME):
            if _names_constant(token, before, after):
                # TYPE 'constant': the same as a cast of the constant
                assert after is not None
                out += [_constant(after), "::", _type(token)]
                position += 2
                continue
            out.append(_identifier(token, before, after, typed=typed))
        elif token.kind == OPERATOR:
            out.append(_operator(token.text, before))
        elif token.kind == PARAMETER:
            out.append("$" + token.text)
        elif token.kind == MARK:
            if token.text == "..":
                raise LexicalError("two dots outside a routine's body")
            out.append(token.text)
        else:
            out.append(_constant(token))
        position += 1
    return " ".join(out)


def _names_constant(token: Token, before: Token | None, after: Token | None) -> bool:
    if after is None or after.kind != STRING or (before is not None and before.text in (".", "::")):
        return False
    return token.kind == NAME or (
        token.text not in _ALWAYS and token.text not in ("uescape", "interval", "zone", "timestamp", "time")
    )


def _type(token: Token) -> str:
    if token.kind == WORD and (token.text in _TYPES or token.text in _KNOWN_TYPES):
        return token.text
    return _quote(CALLED + token.text)


def _constant(token: Token) -> str:
    if token.kind == BIT_STRING:
        return f"'x' :: {_quote(CALLED + 'bit')}"
    if token.kind == NUMBER:
        return str(token.slot) if token.slot >= 0 else "0.0"
    if token.slot < 0:
        return f"'x' :: {_quote(CALLED + 'bpchar')}" if token.national else "'x'"
    return f"'{LIST}{token.slot}'" if token.many else f"'{token.slot}'"


def _identifier(token: Token, before: Token | None, after: Token | None, *, typed: bool) -> str:
    called = after is not None and after.kind == MARK and after.text == "("
    if token.kind == WORD and _is_key_word(token.text, before, after, typed=typed, called=called):
        return token.text
    if typed:
        return _type(token)
    if token.text.startswith(CALLED):
        raise LexicalError("a control character in an identifier")
    return _quote(CALLED + token.text) if called else _quote(token.text)


def _is_key_word(word: str, before: Token | None, after: Token | None, *, typed: bool, called: bool) -> bool:
    dotted = (before is not None and before.text == ".") or (after is not None and after.text == ".")
    if dotted:
        return False
    if word in _INTERVAL_FIELDS:
        return before is not None and before.kind == STRING
    if word == "rows" and _is_word(after, "from"):
        return _is_word(before, "from") or _is_word(before, "join") or _is_word(before, "lateral")
    if word in _TYPES:
        return typed or (after is not None and after.kind == STRING) or (word == "time" and _is_word(before, "at"))
    if not typed and _is_word(before, "as") and word not in _FOLLOWS_AS:
        return False
    if word in ("left", "right") and called:
        return False
    if word in _ALWAYS or (called and word in _BEFORE_PARENTHESIS):
        return True
    if before is not None and before.kind == WORD and before.text in _AFTER.get(word, ()):
        return True
    return after is not None and (
        (after.kind == WORD and after.text in _BEFORE.get(word, ())) or (word in _BEFORE and after.kind == NUMBER)
    )


_FOLLOWS_AS = words("materialized not select with values table")


def _operator(text: str, before: Token | None) -> str:
    if text in _COMPARISONS or text == "=>":
        return text
    if before is None:
        return _PREFIX
    infix = (
        before.kind in (NAME, STRING, NUMBER, PARAMETER, BIT_STRING)
        or (before.kind == MARK and before.text in ")]")
        or (before.kind == WORD and (before.text not in _ALWAYS or before.text in _ENDS_OPERAND))
    )
    return _NEUTRAL if infix else _PREFIX


def _is_word(token: Token | None, word: str) -> bool:
    return token is not None and token.kind == WORD and token.text == word


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
