"""The constants of one execution of a statement: where a plan's operands find their canonical text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.capture import constants
from cache.sql.plans import Operand, OperandSource
from protocol import codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.catalog.tables import Column
    from cache.sql.plans import Literals
    from cache.values.loading import ValueSettings

_NO_FORMAT = -1
"""Of a parameter that Bind has no format code for: the server refuses such a Bind, and no text is certain here."""


class Arguments:
    """The constants of one execution of a statement: its text's literals, and its parameters.

    ``parameters`` are Bind's values with ``formats`` (none: all text; one: for all; or one each) and ``types`` as Parse
    declared them. ``settings`` are the session's; without them only ASCII text is certain. ``outer`` is given for SQL
    EXECUTE: its arguments then stand for the parameters.
    """

    __slots__ = ("_formats", "_literals", "_outer", "_parameters", "_settings", "_types")

    def __init__(
        self,
        literals: Literals,
        parameters: Sequence[bytes | None] = (),
        formats: Sequence[int] = (),
        types: Sequence[int] = (),
        *,
        settings: ValueSettings | None = None,
        outer: tuple[Arguments, tuple[Operand | None, ...]] | None = None,
    ) -> None:
        self._literals = literals
        self._parameters = parameters
        self._formats = formats
        self._types = types
        self._settings = settings
        self._outer = outer

    def text(self, column: Column, operand: Operand) -> bytes | None:
        """The canonical text of a constant compared with or assigned to ``column``; None when that is not certain.
        NULL is not certain either: see ``is_null``."""
        source = operand.source
        if source is OperandSource.LITERAL:
            return constants.literal_text(column, self._literals[operand.index], operand, self._settings)
        if source is OperandSource.PARAMETER:
            return self._parameter(column, operand)
        return constants.keyword_text(column, operand)

    def is_null(self, operand: Operand) -> bool:
        """The operand is certainly NULL."""
        if operand.source is OperandSource.NULL:
            return True
        if operand.source is not OperandSource.PARAMETER:
            return False
        if self._outer is not None:
            argument = self._argument(operand)
            return argument is not None and self._outer[0].is_null(argument)
        return operand.index < len(self._parameters) and self._parameters[operand.index] is None

    def array(self, column: Column, operand: Operand) -> list[bytes] | None:
        """The canonical texts of an array's elements, NULLs left out; None when they are not certain."""
        if operand.source is OperandSource.LITERAL:
            return constants.array_literal_texts(column, self._literals[operand.index], operand, self._settings)
        if operand.source is not OperandSource.PARAMETER or self._outer is not None:
            return None
        raw, declared = self._raw(operand)
        if raw is None:
            return []
        return constants.array_texts(column, raw, self._format(operand.index), declared, operand, self._settings)

    def _argument(self, operand: Operand) -> Operand | None:
        assert self._outer is not None
        arguments = self._outer[1]
        return arguments[operand.index] if operand.index < len(arguments) else None

    def _parameter(self, column: Column, operand: Operand) -> bytes | None:
        if self._outer is not None:
            argument = self._argument(operand)
            if argument is None or argument.cast is not None:
                return None
            outer, _ = self._outer
            return outer.text(column, Operand(argument.source, argument.index, argument.negative, operand.cast))
        raw, declared = self._raw(operand)
        if raw is None:
            return None
        return constants.parameter_text(column, raw, self._format(operand.index), declared, operand, self._settings)

    def _raw(self, operand: Operand) -> tuple[bytes | None, int]:
        index = operand.index
        raw = self._parameters[index] if index < len(self._parameters) else None
        return raw, self._types[index] if index < len(self._types) else 0

    def _format(self, index: int) -> int:
        formats = self._formats
        if not formats:
            return codes.TEXT
        if len(formats) == 1:
            return formats[0]
        return formats[index] if index < len(formats) else _NO_FORMAT
