"""What statements would do to Redis, and why, in words: what ``rowtap explain`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.capture import constants
from cache.sql.memo import PlanMemo
from cache.sql.plans import ANY_SETTING, RESET_ALL, Action, Command, OperandSource, Reason, Returning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache.catalog.tables import Catalog, Column, Scope
    from cache.sql.plans import Literals, Operand, Plan, WritePlan

_SHOWN = 10
"""Keys that the plain text names; the rest is counted."""
_ACTIONS = {
    Action.NOTHING: "nothing",
    Action.STORE: "Store",
    Action.EVICT: "Evict",
    Action.FLUSH: "Flush",
}


@dataclass(frozen=True, slots=True)
class Effect:
    """What one statement may do to one rule's keys."""

    rule: str
    """Label of the rule."""
    action: str
    """Fill, Store, Evict, Flush or nothing."""
    keys: tuple[str, ...] = ()
    """``id = 42`` for each key it names; none where the rows of the result say it, or nothing does."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"table": self.rule, "effect": self.action.lower(), "keys": list(self.keys), "note": self.note}

    def line(self) -> str:
        """The effect on one line."""
        keys = "; ".join(self.keys[:_SHOWN])
        if len(self.keys) > _SHOWN:
            keys += f"; and {len(self.keys) - _SHOWN} more"
        parts = [f"{self.action} {self.rule}" if self.action != "nothing" else f"nothing on {self.rule}"]
        return ": ".join([*parts, *filter(None, [keys])]) + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """One statement's plan in words."""

    number: int
    """Which statement of its text, from 1."""
    command: Command
    reason: Reason
    effects: tuple[Effect, ...]
    notes: tuple[str, ...]
    inner: Explanation | None = None
    """What PREPARE or DECLARE will run."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``json.dumps``."""
        return {
            "statement": self.number,
            "command": self.command.value,
            "reason": self.reason.value,
            "why": self.reason.sentence,
            "effects": [effect.to_json() for effect in self.effects],
            "notes": list(self.notes),
            "inner": None if self.inner is None else self.inner.to_json(),
        }

    def lines(self) -> list[str]:
        """The explanation as lines of plain text."""
        title = f"{self.number}. {self.reason.value}: {self.reason.sentence}"
        if self.inner is not None:
            title = f"{self.number}. {self.command.value}: what it names does this when it runs:"
        lines = [title]
        lines += [f"   {effect.line()}" for effect in self.effects]
        lines += [f"   {note}" for note in self.notes]
        if self.inner is not None:
            lines += [f"   {line}" for line in self.inner.lines()]
        return lines


def explain(text: str | bytes, catalog: Catalog, scope: Scope) -> list[Explanation]:
    """An explanation for each statement of ``text``. Never raises for any text."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    plans, literals = PlanMemo(16).plans(raw, catalog, scope)
    return [_explanation(number, plan, literals) for number, plan in enumerate(plans, 1)]


def _explanation(number: int, plan: Plan, literals: Literals) -> Explanation:
    return Explanation(
        number,
        plan.command,
        plan.reason,
        tuple(_effects(plan, literals)),
        tuple(_notes(plan)),
        None if plan.inner is None else _explanation(number, plan.inner, literals),
    )


def _effects(plan: Plan, literals: Literals) -> Iterator[Effect]:
    for fill in plan.fills:
        pairs = zip(fill.bound.key, fill.fixed, strict=True)
        fixed = " and ".join(_equation(column, operand, literals) for column, operand in pairs if operand is not None)
        needed = [column.name for column, operand in zip(fill.bound.key, fill.fixed, strict=True) if operand is None]
        columns = ", ".join([*needed, *(column.name for column in fill.bound.value)])
        yield Effect(fill.bound.rule.label, "Fill", (fixed,) if fixed else (), f"if the result has {columns}")
    for write in plan.writes:
        yield Effect(write.bound.rule.label, _ACTIONS[write.action], tuple(_keys(write, literals)), _note(write))


def _note(write: WritePlan) -> str:
    notes = []
    if write.returning is Returning.STORE:
        notes.append("or a Store of each row of RETURNING that has the key and the values")
    elif write.returning is Returning.EVICT:
        notes.append("or an Evict of each row of RETURNING that has the key")
    if write.counted and write.action is not Action.NOTHING:
        notes.append("if it touches a row")
    return "; ".join(notes)


def _keys(write: WritePlan, literals: Literals) -> Iterator[str]:
    if write.array is not None:
        yield _equation(write.bound.key[0], write.array, literals, array=True)
        return
    for target in write.targets:
        yield " and ".join(
            _equation(column, operand, literals) for column, operand in zip(write.bound.key, target.key, strict=True)
        )


def _equation(column: Column, operand: Operand, literals: Literals, *, array: bool = False) -> str:
    shown = _constant(column, operand, literals, array=array)
    return f"{column.name} = ANY({shown})" if array else f"{column.name} = {shown}"


def _constant(column: Column, operand: Operand, literals: Literals, *, array: bool) -> str:
    if operand.source is OperandSource.PARAMETER:
        return f"${operand.index + 1}"
    if operand.source is not OperandSource.LITERAL:
        return str(operand.source.value)
    literal = literals[operand.index]
    text = None if array else constants.literal_text(column, literal, operand)
    if text is None:
        text = literal.value
    return text.decode("utf-8", "replace")


def _notes(plan: Plan) -> Iterator[str]:
    if plan.whole:
        yield "The text cannot be divided into statements; this stands for all of it."
    if plan.opaque:
        yield "It may write what cannot be seen, so the rest of its transaction fills nothing."
    if plan.ddl:
        yield "The catalog is asked again afterwards."
    if plan.shadows:
        yield f"From now on the session's own temporary {', '.join(plan.shadows)} may be meant: writes evict."
    for name, value, local in plan.settings:
        which = "some parameter" if name in (ANY_SETTING, RESET_ALL) else name
        what = f"to {value}" if value is not None else "to what is not known here"
        yield f"It sets {which} {what}{' for the transaction' if local else ''}."
