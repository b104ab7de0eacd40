"""Rewrites a statement's tokens as a text that the SQL parser, made for many dialects, reads as PostgreSQL does.

Every identifier is quoted, so the parser sees only those key words that PostgreSQL's grammar has at that place. A
function's name bears ``CALL_PREFIX``, so the parser does not take it for one it knows. A constant is written as the
number of its slot. All operators that no plan depends on are written as one. What the parser might read in another way
does not occur: comments, ``U&""``, dollar quotes, escapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.builtin_types import TABLE
from cache.sql.lexer import BIT_STRING, MARK, NAME, NUMBER, OPERATOR, PARAMETER, STRING, WORD, LexicalError, Token
from cache.sql.plans import Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

CALL_PREFIX = "\x01"
"""Stands before a name that a parenthesis follows, and before a type's name that means another type to the parser."""
LIST_PREFIX = "L"
"""Stands before the slot of a long IN list, whose literal is an array."""
CURRENT_OF = CALL_PREFIX + "current of"
"""The function that ``CURRENT OF cursor`` is written as."""
LONG_LIST = 16
"""A longer IN list of constants is one literal: an array."""
MANY_ROWS = 64
"""Rows of constants in VALUES after these are not parsed."""
MAX_DEPTH = 80
"""Nesting beyond this is not parsed: the parser recurses."""
MAX_BRACKETS = 8
"""Nested ``[``: the parser's time doubles with each. PostgreSQL's arrays have at most 6 dimensions."""
MAX_SUBSCRIPTS = 40
"""``a[1][2]…``: the parser's time grows with the cube."""
MAX_PARSED = 6_000
"""Lexemes a parser is given at most."""


def word_set(text: str) -> frozenset[str]:
    """The words of ``text``, as a set."""
    return frozenset(text.split())


_KEY_WORDS = word_set(
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
_KEY_WORDS_BEFORE_PARENTHESIS = word_set(
    "coalesce cube exists extract filter greatest grouping least none normalize nullif overlay position rollup row "
    "sets substring treat trim values xmlconcat xmlelement xmlexists xmlforest xmlparse xmlpi xmlroot xmlserialize "
    "json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table "
    "json_value"
)
_TYPE_KEY_WORDS = frozenset(word for row in TABLE for word in row.key_words if " " not in word)
"""Types that have a key word in PostgreSQL's grammar."""
# Words that are key words only next to certain others: behind one of these, …
_KEY_WORD_AFTER = {
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
    "other_references": {"no"},
    "current": {"between", "and", "exclude", "rows", "range", "groups"},
}
# … or before one of these.
_KEY_WORD_BEFORE = {
    "nulls": {"first", "last"},
    "grouping": {"sets"},
    "at": {"time", "local"},
    "partition": {"by"},
    "within": {"group"},
    "no": {"key", "other_references"},
    "double": {"precision"},
    "rows": {"between", "unbounded", "current", "with", "only"},
    "row": {"with", "only"},
    "range": {"between", "unbounded", "current"},
    "groups": {"between", "unbounded", "current"},
    "search": {"breadth", "depth"},
    "breadth": {"first"},
    "depth": {"first"},
}
_PARSER_TYPES = frozenset(row.name for row in TABLE if row.known_to_parser)
_INTERVAL_FIELDS = word_set("year month day hour minute second")
_KNOWN_OPERATORS = word_set("= < > <= >= <> + - * / % ^")
_INFIX = "<->"
"""Written for every infix operator but the known ones."""
_PREFIX = "~"
"""Written for every prefix operator."""
_ENDS_OPERAND = word_set("null true false end default current_date current_time current_timestamp current_user")


def number_literals(tokens: Sequence[Token]) -> tuple[list[Token], tuple[Literal, ...]]:
    """The tokens with a slot on each literal whose value is certain, and the literals."""
    literals: list[Literal] = []
    result: list[Token] = []
    position, count = 0, len(tokens)
    while position < count:
        token = tokens[position]
        if token.kind == WORD and token.text == "in" and (end := _long_list(tokens, position + 1)):
            literals.append(_array(tokens[position + 2 : end]))
            result += [token, tokens[position + 1]]
            result += [Token(STRING, "", slot=len(literals) - 1, is_list=True), tokens[end]]
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


def _long_list(tokens: Sequence[Token], start: int) -> int:
    """Where the parenthesis at ``start`` closes if it holds a long list of constants of one kind; 0 otherwise."""
    if start >= len(tokens) or tokens[start].text != "(" or tokens[start].kind != MARK:
        return 0
    position, elements, kind = start + 1, 0, -1
    while position < len(tokens):
        if tokens[position].kind == OPERATOR and tokens[position].text == "-":
            position += 1
            if position < len(tokens) and tokens[position].kind != NUMBER:
                return 0
        if position + 1 >= len(tokens):
            return 0
        token, after = tokens[position], tokens[position + 1]
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


def _array(tokens: Sequence[Token]) -> Literal:
    """The constants as PostgreSQL's text of an array."""
    if any(token.kind == NUMBER for token in tokens):
        return Literal(("{" + "".join(token.text for token in tokens) + "}").encode(), "integer[]")
    quoted = (token.text.replace("\\", "\\\\").replace('"', '\\"') for token in tokens if token.kind == STRING)
    return Literal(('{"' + '","'.join(quoted) + '"}').encode(), "string[]")


def depth(tokens: Sequence[Token]) -> int:
    """How deep the statement nests: parentheses, brackets, CASE, and runs of prefix operators and NOT."""
    deepest = level = run = subscripts = brackets = 0
    before = ""
    for token in tokens:
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


def shortened(tokens: Sequence[Token]) -> list[Token] | None:
    """The tokens of an INSERT without the rows of VALUES after the first MANY_ROWS; None if there are no more rows, or
    not all of them are plain constants."""
    start = next((i for i, token in enumerate(tokens) if token.kind == WORD and token.text == "values"), None)
    if start is None or len(tokens) < 3 * MANY_ROWS:
        return None
    position, rows, cut = start + 1, 0, 0
    while position < len(tokens) and tokens[position].kind == MARK and tokens[position].text == "(":
        position += 1
        while position < len(tokens) and _is_simple(tokens[position]):
            position += 1
        if position >= len(tokens) or tokens[position].text != ")":
            return None
        position += 1
        rows += 1
        if rows == MANY_ROWS:
            cut = position
        if position < len(tokens) and tokens[position].kind == MARK and tokens[position].text == ",":
            position += 1
            continue
        break
    return [*tokens[:cut], *tokens[position:]] if rows > MANY_ROWS else None


def _is_simple(token: Token) -> bool:
    if token.kind in (STRING, NUMBER, PARAMETER, BIT_STRING, WORD):
        return True
    return token.text in (",", "::", "[", "]") if token.kind == MARK else token.text in "+-"


def simplified(tokens: Sequence[Token]) -> list[Token]:
    """The tokens without what the parser does not know and no plan depends on: TABLESAMPLE, the parentheses of ONLY,
    OVERRIDING, the time zone in a type's name; OPERATOR(…) becomes an operator."""
    result: list[Token] = []
    position, count = 0, len(tokens)
    while position < count:
        token = tokens[position]
        next_words = [other.text if other.kind == WORD else "" for other in tokens[position : position + 3]] + ["", ""]
        called = position + 1 < count and tokens[position + 1].kind == MARK and tokens[position + 1].text == "("
        called = called and not (position and tokens[position - 1].text == ".")
        if (next_words[0] in ("with", "without") and next_words[1:3] == ["time", "zone"]) or (
            next_words[0] == "overriding" and next_words[1] in ("system", "user") and next_words[2] == "value"
        ):
            position += 3
        elif next_words[0] == "tablesample" and (start := _arguments(tokens, position + 1)):
            position = _after_constants(tokens, start)
            if position < count and tokens[position].text == "repeatable":
                position = _after_constants(tokens, position + 1)
        elif next_words[0] == "operator" and called and tokens[closing(tokens, position) - 1].kind == OPERATOR:
            position = closing(tokens, position) + 1
            result.append(Token(OPERATOR, _PREFIX))
        elif next_words[0] == "only" and called:
            end = closing(tokens, position)
            result += [token, *tokens[position + 2 : end]]
            position = end + 1
        else:
            result.append(token)
            position += 1
    return result


def _arguments(tokens: Sequence[Token], start: int) -> int:
    """Where the parenthesis opens after a sampling method's name, which may be qualified; 0 if there is no such name,
    because TABLESAMPLE is a label here."""
    for position in range(start, len(tokens)):
        token = tokens[position]
        if token.kind == MARK and token.text == "(":
            return position if position > start else 0
        named = token.kind == NAME or (token.kind == WORD and token.text not in _KEY_WORDS)
        if not named and (token.kind != MARK or token.text != "."):
            break
    return 0


def _after_constants(tokens: Sequence[Token], start: int) -> int:
    """What follows the parenthesis at ``start``, in which nothing may be called or selected."""
    end = closing(tokens, start)
    if any(token.kind == MARK and token.text == "(" for token in tokens[start + 1 : end]):
        raise LexicalError("TABLESAMPLE of an expression")
    return end + 1


def closing(tokens: Sequence[Token], start: int) -> int:
    """The position of the parenthesis that closes the first one at or after ``start``."""
    level = 0
    for position in range(start, len(tokens)):
        token = tokens[position]
        if token.kind == MARK and token.text == "(":
            level += 1
        elif token.kind == MARK and token.text == ")":
            level -= 1
            if level == 0:
                return position
    raise LexicalError("a parenthesis that is not closed")


def render_for_parser(tokens: Sequence[Token]) -> str:
    """The tokens as text for the parser."""
    out: list[str] = []
    calls: list[bool] = []
    count = len(tokens)
    position = 0
    while position < count:
        token = tokens[position]
        before = tokens[position - 1] if position else None
        after = tokens[position + 1] if position + 1 < count else None
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
            out.append(_operator(token.text, before, after))
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
        token.text not in _KEY_WORDS and token.text not in ("uescape", "interval", "zone", "timestamp", "time")
    )


def _type(token: Token) -> str:
    if token.kind == WORD and (token.text in _TYPE_KEY_WORDS or token.text in _PARSER_TYPES):
        return token.text
    return _quote(CALL_PREFIX + token.text)


def _constant(token: Token) -> str:
    if token.kind == BIT_STRING:
        return f"'x' :: {_quote(CALL_PREFIX + 'bit')}"
    if token.kind == NUMBER:
        return str(token.slot) if token.slot >= 0 else "0.0"
    if token.slot < 0:
        return f"'x' :: {_quote(CALL_PREFIX + 'bpchar')}" if token.national else "'x'"
    return f"'{LIST_PREFIX}{token.slot}'" if token.is_list else f"'{token.slot}'"


def _identifier(token: Token, before: Token | None, after: Token | None, *, typed: bool) -> str:
    called = after is not None and after.kind == MARK and after.text == "("
    if token.kind == WORD and _is_key_word(token.text, before, after, typed=typed, called=called):
        return token.text
    if typed:
        return _type(token)
    if token.text.startswith(CALL_PREFIX):
        raise LexicalError("a control character in an identifier")
    return _quote(CALL_PREFIX + token.text) if called else _quote(token.text)


def _is_key_word(word: str, before: Token | None, after: Token | None, *, typed: bool, called: bool) -> bool:
    dotted = (before is not None and before.text == ".") or (after is not None and after.text == ".")
    if dotted:
        return False
    if word in _INTERVAL_FIELDS:
        return before is not None and before.kind == STRING
    if word == "rows" and _is_word(after, "from"):
        return _is_word(before, "from") or _is_word(before, "join") or _is_word(before, "lateral")
    if called and before is not None and word in ("join", "like", "filter") and not _continues(word, before):
        return False
    if word == "current_schema":
        return not called
    if word in _TYPE_KEY_WORDS:
        return typed or (after is not None and after.kind == STRING) or (word == "time" and _is_word(before, "at"))
    if not typed and _is_word(before, "as") and word not in _FOLLOWS_AS:
        return False
    if word in ("left", "right") and called:
        return False
    if word in _KEY_WORDS or (called and word in _KEY_WORDS_BEFORE_PARENTHESIS):
        return True
    if before is not None and before.kind == WORD and before.text in _KEY_WORD_AFTER.get(word, ()):
        return True
    return after is not None and (
        (after.kind == WORD and after.text in _KEY_WORD_BEFORE.get(word, ()))
        or (word in _KEY_WORD_BEFORE and after.kind == NUMBER)
    )


_FOLLOWS_AS = word_set("materialized not select with values table")


def _continues(word: str, before: Token) -> bool:
    """``word`` belongs to what stands before it, so that it is not the name of a function."""
    if word == "filter":
        return before.kind == MARK and before.text == ")"
    return _ends_operand(before) or (before.kind == WORD and before.text in _BEFORE_JOIN_OR_LIKE)


_BEFORE_JOIN_OR_LIKE = word_set("not left right full inner cross outer natural")


def _ends_operand(token: Token) -> bool:
    """An operator after it has a left side."""
    return (
        token.kind in (NAME, STRING, NUMBER, PARAMETER, BIT_STRING)
        or (token.kind == MARK and token.text in ")]")
        or (token.kind == WORD and (token.text not in _KEY_WORDS or token.text in _ENDS_OPERAND))
    )


def _operator(text: str, before: Token | None, after: Token | None) -> str:
    infix = before is not None and _ends_operand(before)
    if text == "+" and not infix and (after is None or after.kind != NUMBER):
        return _PREFIX  # the parser drops it, but of a type that has no such operator it may be the user's
    if text in _KNOWN_OPERATORS:
        return text
    return _INFIX if infix else _PREFIX


def _is_word(token: Token | None, word: str) -> bool:
    return token is not None and token.kind == WORD and token.text == word


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
