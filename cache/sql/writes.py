"""What one data-modifying statement does to one rule's keys: the second table of docs/capture.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache.catalog.tables import LinkType
from cache.rules import ValueFormat
from cache.sql.plans import Action, Operand, OperandSource, Reason, Returning, Target, WritePlan
from cache.sql.statements import Conflict, Verb

if TYPE_CHECKING:
    from cache.catalog.tables import BoundRule, Link, Relation
    from cache.sql.operands import Keys, Operands
    from cache.sql.statements import Write


class Case(NamedTuple):
    """One write, and one link over which it reaches a rule."""

    write: Write
    link: Link
    relation: Relation
    """The relation written."""
    certain: bool
    """The statement's name means that relation and nothing else."""
    joined: bool
    """FROM or USING has the rule's table too, so RETURNING may show rows that were not written."""
    operands: Operands

    @property
    def bound(self) -> BoundRule:
        return self.link.bound

    @property
    def triggered(self) -> bool:
        """A trigger may change, suppress or add to what is written."""
        return bool(self.relation.triggers & _events(self.write, self.relation))

    @property
    def counted(self) -> bool:
        # A trigger may suppress a row, so that it is not counted, and write something else instead.
        return self.write.counted and not self.triggered

    @property
    def assigned(self) -> dict[str, Operand | None]:
        return dict(self.write.assignments)

    @property
    def generated(self) -> bool:
        return any(column.generated for column in (*self.bound.key, *self.bound.value))

    @property
    def moves(self) -> bool:
        """The relation written is a parent: an UPDATE may move rows into the rule's table, or out of it."""
        return self.link.type is LinkType.PARENT


Planned = tuple[WritePlan, Reason]


def plan(case: Case) -> Planned | None:
    """What the write may do to the rule's keys; None when it cannot reach them."""
    verb, link_type = case.write.verb, case.link.type
    if link_type is LinkType.CASCADE:
        return _cascade(case)
    if verb is Verb.TRUNCATE:
        return _flush(case, Reason.FLUSH_TRUNCATE, counted=False)
    if case.relation.rewritten:
        return _flush(case, Reason.FLUSH_REWRITE_RULE, counted=False)
    if link_type is LinkType.VIEW:
        return _flush(case, Reason.FLUSH_VIEW, counted=False)
    if verb is Verb.UPDATE:
        planned = _update(case)
    elif verb is Verb.DELETE:
        planned = _delete(case)
    elif verb is Verb.MERGE:
        planned = _merge(case)
    else:
        planned = _insert(case)
    return _with_returning(case, *planned)


def as_one_of_several(planned: WritePlan, reason: Reason) -> Planned:
    """The plan of a write whose statement also writes the rule's table elsewhere, in no certain order."""
    action = Action.EVICT if planned.action is Action.STORE else planned.action
    targets = tuple(Target(target.key) for target in planned.targets if target.key)
    write = WritePlan(planned.bound, action, targets, planned.array, counted=planned.counted)
    return write, Reason.EVICT_SEVERAL if planned.action is Action.STORE else reason


def _events(write: Write, relation: Relation) -> frozenset[str]:
    """The trigger events a write may set off."""
    if write.verb is Verb.INSERT or write.verb is Verb.COPY:
        return frozenset(["INSERT", "UPDATE"] if write.conflict is Conflict.UPDATE else ["INSERT"])
    if write.verb is Verb.DELETE:
        return frozenset(["DELETE"])
    if write.verb is Verb.UPDATE and relation.kind != "p":
        return frozenset(["UPDATE"])
    # MERGE may do anything, and an UPDATE that moves a row to another partition is a DELETE and an INSERT.
    return frozenset(["INSERT", "UPDATE", "DELETE"])


def _flush(case: Case, reason: Reason, *, counted: bool | None = None) -> Planned:
    counted = case.counted if counted is None else counted
    if reason is Reason.FLUSH_UNKNOWN_KEY and case.link.type is LinkType.PARENT:
        reason = Reason.FLUSH_PARENT
    return WritePlan(case.bound, Action.FLUSH, counted=counted), reason


def _nothing(case: Case, reason: Reason) -> Planned:
    return WritePlan(case.bound, Action.NOTHING, counted=case.write.counted), reason


def _evict(case: Case, keys: Keys | None, array: Operand | None, reason: Reason) -> Planned:
    """An Evict of each key, or a Flush if they are not known."""
    if keys is None and array is None:
        return _flush(case, Reason.FLUSH_UNKNOWN_KEY)
    targets = tuple(Target(key) for key in keys or ())
    return WritePlan(case.bound, Action.EVICT, targets, array, counted=case.counted), reason


def _cascade(case: Case) -> Planned | None:
    """A write on a table that a foreign key of the rule's table refers to."""
    write, link = case.write, case.link
    if write.verb is Verb.TRUNCATE:
        return None  # it fails, or says CASCADE and then everything is flushed
    changed = link.on_update or frozenset()
    deletes = write.verb is Verb.DELETE or write.deletes
    reaches = (
        (deletes and link.on_delete)
        or bool(changed & case.assigned.keys())
        or (bool(changed) and bool(write.assignments) and case.triggered)
        or (case.relation.rewritten and (link.on_delete or bool(changed)))
        or (case.relation.kind == "v" and (link.on_delete or bool(changed)))
    )
    return _flush(case, Reason.FLUSH_CASCADE, counted=case.counted and not case.relation.rewritten) if reaches else None


def _why_not_certain(case: Case) -> Reason | None:
    """Why the rows may not be stored as the statement says, whatever values it gives; None when they are."""
    if case.triggered:
        return Reason.EVICT_TRIGGER
    if case.generated:
        return Reason.EVICT_GENERATED
    if not case.certain:
        return Reason.EVICT_UNCERTAIN_NAME
    if case.link.type is not LinkType.SELF:
        return Reason.EVICT_PARTITION
    if not case.write.counted:
        return Reason.EVICT_UNCOUNTED
    return None


def _update(case: Case) -> Planned:
    bound, assigned = case.bound, case.assigned
    keys, array = case.operands.keys(bound, case.write.equalities)
    changed = [column.name for column in bound.key if column.name in assigned]
    if changed and not _key_kept(case, keys):
        return _key_change(case, keys)
    touched = any(column.name in assigned for column in bound.value)
    if not touched and not case.triggered and not case.generated and not case.moves:
        return _nothing(case, Reason.NOTHING_UNTOUCHED)
    doubt = _why_not_certain(case)
    if doubt is not None or (keys is None and array is None):
        return _evict(case, keys, array, doubt or Reason.FLUSH_UNKNOWN_KEY)
    values, reason = _new_values(case, assigned)
    if values is None:
        return _evict(case, keys, array, reason)
    if keys is None:
        return WritePlan(bound, Action.STORE, (Target((), values),), array), Reason.STORE
    return WritePlan(bound, Action.STORE, tuple(Target(key, values) for key in keys)), Reason.STORE


def _key_kept(case: Case, keys: Keys | None) -> bool:
    """SET gives the key columns the values that WHERE compares them with: the same parameters."""
    if keys is None or len(keys) != 1:
        return False
    for column, operand in zip(case.bound.key, keys[0], strict=True):
        if column.name in case.assigned:
            new = case.operands.key(column, case.assigned[column.name])
            if new is None or new != operand or new.source is not OperandSource.PARAMETER:
                return False
    return True


def _key_change(case: Case, keys: Keys | None) -> Planned:
    """Evicts of the old and the new key."""
    if keys is None or case.triggered:
        return _flush(case, Reason.FLUSH_KEY_CHANGE)
    targets = list(keys)
    for old in keys:
        new: list[Operand] = []
        for column, operand in zip(case.bound.key, old, strict=True):
            given = operand
            if column.name in case.assigned:
                # A constant of another type than the column's would be stored with another text.
                value = case.operands.value(column, case.assigned[column.name])
                if value is None:
                    return _flush(case, Reason.FLUSH_KEY_CHANGE)
                given = value
            new.append(given)
        targets.append(tuple(new))
    return _evict(case, tuple(dict.fromkeys(targets)), None, Reason.EVICT_KEY_CHANGE)


def _new_values(case: Case, assigned: dict[str, Operand | None]) -> tuple[tuple[Operand | None, ...] | None, Reason]:
    """The constants that an UPDATE gives the value columns, or why they cannot be stored."""
    values: list[Operand | None] = []
    for column in case.bound.value:
        if column.name not in assigned:
            if case.bound.rule.format is not ValueFormat.HASH:
                return None, Reason.EVICT_PARTIAL
            values.append(None)
            continue
        given = assigned[column.name]
        if given is None:
            return None, Reason.EVICT_EXPRESSION
        operand = case.operands.value(column, given)
        if operand is None:
            return None, Reason.EVICT_TYPE
        values.append(operand)
    return tuple(values), Reason.STORE


def _delete(case: Case) -> Planned:
    keys, array = case.operands.keys(case.bound, case.write.equalities)
    reason = Reason.EVICT_DELETE
    if case.triggered:
        reason = Reason.EVICT_TRIGGER
    elif case.link.type is not LinkType.SELF:
        reason = Reason.EVICT_PARTITION
    return _evict(case, keys, array, reason)


def _merge(case: Case) -> Planned:
    write = case.write
    touched = any(column.name in case.assigned for column in (*case.bound.key, *case.bound.value))
    harmless = not touched and not write.deletes and not case.triggered and not case.generated
    if harmless and not (case.moves and write.assignments):
        return _nothing(case, Reason.NOTHING_INSERT if not write.assignments else Reason.NOTHING_UNTOUCHED)
    return _flush(case, Reason.FLUSH_UNKNOWN_KEY)


def _insert(case: Case) -> Planned:
    write = case.write
    rows = _rows(case)
    keys = None if rows is None else tuple(key for key, _ in rows)
    if write.conflict is Conflict.UPDATE:
        return _upsert(case, keys)
    if rows is None or keys is None:
        return _nothing(case, Reason.NOTHING_INSERT)
    doubt = _why_not_certain(case)
    if doubt in (Reason.EVICT_TRIGGER, Reason.EVICT_UNCERTAIN_NAME):
        return _evict(case, keys, None, doubt)
    if doubt is not None or any(values is None for _, values in rows):
        return _nothing(case, Reason.NOTHING_INSERT)
    targets = tuple(Target(key, values) for key, values in rows if values is not None)
    return WritePlan(case.bound, Action.STORE, targets, missing=Action.NOTHING), Reason.STORE


def _upsert(case: Case, keys: Keys | None) -> Planned:
    """INSERT … ON CONFLICT DO UPDATE."""
    assigned = case.assigned
    if any(column.name in assigned for column in case.bound.key):
        return _flush(case, Reason.FLUSH_KEY_CHANGE)
    touched = any(column.name in assigned for column in case.bound.value)
    if not touched and not case.triggered and not case.generated and not case.moves:
        return _nothing(case, Reason.NOTHING_UNTOUCHED)
    arbiter = case.write.conflict_columns
    if arbiter is None or not arbiter >= {column.name for column in case.bound.key}:
        keys = None  # the row it updates may have another key than the one it would have inserted
    doubt = Reason.EVICT_TRIGGER if case.triggered else Reason.EVICT_UPSERT
    return _evict(case, keys, None, doubt)


def _rows(case: Case) -> list[tuple[tuple[Operand, ...], tuple[Operand | None, ...] | None]] | None:
    """For each row of VALUES its key and its values (None: not certain); None if a key is not known."""
    write, bound = case.write, case.bound
    columns = write.columns
    if columns is None:
        columns = tuple(case.relation.columns)
    if not write.rows or not columns:
        return None
    result = []
    for row in write.rows:
        given = dict(zip(columns, row, strict=False))
        key: list[Operand] = []
        for column in bound.key:
            operand = case.operands.value(column, given.get(column.name))
            if operand is None or operand.source is OperandSource.NULL or case.operands.key(column, operand) is None:
                return None
            key.append(operand)
        values = tuple(case.operands.value(column, given.get(column.name)) for column in bound.value)
        result.append((tuple(key), None if None in values else values))
    return result


def _with_returning(case: Case, planned: WritePlan, reason: Reason) -> Planned:
    """The plan with what its RETURNING rows may be used for."""
    returning = _returning(case)
    if returning is Returning.NO:
        return planned, reason
    replaced = WritePlan(
        planned.bound,
        planned.action,
        planned.targets,
        planned.array,
        counted=planned.counted,
        returning=returning,
        missing=planned.missing,
    )
    stores = returning is Returning.STORE and planned.action is not Action.STORE
    return replaced, Reason.STORE_RETURNING if stores else reason


def _returning(case: Case) -> Returning:
    """What the rows of RETURNING show: the rows as stored, the keys that were touched, or nothing certain."""
    write = case.write
    if not write.returning or not write.counted or case.joined or case.link.type is not LinkType.SELF:
        return Returning.NO
    key_set = any(column.name in case.assigned for column in case.bound.key)
    keys, _ = case.operands.keys(case.bound, write.equalities) if write.verb is Verb.UPDATE else (None, None)
    if key_set and not (write.verb is Verb.UPDATE and _key_kept(case, keys)):
        return Returning.NO
    if write.verb is Verb.DELETE:
        return Returning.NO if write.new else Returning.EVICT
    if write.verb is Verb.INSERT and write.old:
        return Returning.NO
    if write.verb is Verb.MERGE:
        if write.old or write.new:
            return Returning.NO
        return Returning.EVICT if write.deletes or case.triggered or not case.certain else Returning.STORE
    if write.old or case.triggered or not case.certain:
        return Returning.EVICT
    return Returning.STORE
