"""What a predicate says of entry IDs and keys, read off the expression that Polars hands over.

An expression is a tree; its serialized form is the only one that can be walked. What is not
recognized in it bounds nothing: Polars applies the whole predicate to what was read in any case.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any, NamedTuple

import polars as pl

from polars_redis._core import IdBounds

_MAX_UNSIGNED = 2**64 - 1
_MAX_SIGNED = 2**63 - 1
_MAX_FLOAT = 2**52
"""Floats below are less than one away from the floats next to them."""

_MIRRORED = {"Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}
_ANDS = {"And", "LogicalAnd"}
_EQUALITIES = {"Eq", "EqValidity"}
_SIDES = {
    "Both": ("GtEq", "LtEq"),
    "Left": ("GtEq", "Lt"),
    "Right": ("Gt", "LtEq"),
    "None": ("Gt", "Lt"),
}
"""How the two ends of ``is_between`` compare, by what it calls closed."""

_COMPARISONS = {*_MIRRORED, *_EQUALITIES, "NotEq", "NotEqValidity"}
_CONNECTIVES = {*_ANDS, "Or", "LogicalOr", "Xor"}
_OF_A_VALUE = {
    "Boolean": {"Not", "IsBetween", "IsIn", "IsNull", "IsNotNull"},
    "StringExpr": {
        "StartsWith",
        "EndsWith",
        "Contains",
        "ContainsAny",
        "ContainsMany",
        "CountMatches",
        "Find",
        "LenBytes",
        "LenChars",
        "Lowercase",
        "Uppercase",
        "Slice",
        "Head",
        "Tail",
        "Extract",
        "Replace",
        "StripChars",
        "StripCharsStart",
        "StripCharsEnd",
        "StripPrefix",
        "StripSuffix",
        "ToInteger",
    },
}
"""Functions whose result depends on one value, not on those in other rows."""

_WIDER = {"Int64", "Int128", "UInt64", "UInt128"}
"""Dtypes in which the parts of an entry ID are the same numbers."""


class IdColumns(NamedTuple):
    """Names of the columns made of the entry ID, where there are any."""

    id: str | None
    timestamp: str | None
    sequence: str | None


class _Column(NamedTuple):
    """A column made of the entry ID, in a predicate: how it is calculated with."""

    part: str
    factor: int = 1
    unit: str | None = None
    """Time unit, if it is made a Datetime."""
    zone: str | None = None
    """Time zone of that."""


def bounds_of(predicate: pl.Expr, columns: IdColumns) -> IdBounds | None:
    """Give what a predicate says of entry IDs; None if nothing."""
    try:
        tree = _tree(predicate)
        return None if tree is None else _Walk(columns).bounds(tree)
    except RecursionError:
        # Nested too deep to be walked: it bounds nothing.
        return None


def filter_of(predicate: pl.Expr, column: str) -> pl.Expr | None:
    """Give the part of a predicate that one column decides, value by value; None if none."""
    try:
        tree = _tree(predicate)
        nodes = [] if tree is None else _conjuncts(tree)
        parts = [_expression(node) for node in nodes if _decides(node, column)]
    except RecursionError:
        # Nested too deep to be walked: all streams are read.
        return None
    return pl.all_horizontal(*parts) if parts else None


def _tree(predicate: pl.Expr) -> Any:
    try:
        return json.loads(predicate.meta.serialize(format="json"))
    except (pl.exceptions.PolarsError, ValueError):
        # Some expressions cannot be serialized, such as a call of a Python function.
        return None


def _expression(node: Any) -> pl.Expr:
    return pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")


def _conjuncts(node: Any) -> list[Any]:
    """Give the conditions that all have to hold."""
    kind, content = _only(node)
    if kind == "BinaryExpr" and content["op"] in _ANDS:
        return _conjuncts(content["left"]) + _conjuncts(content["right"])
    return [node]


def _decides(node: Any, column: str) -> bool:
    """Tell whether a condition's result depends on the value of one column alone."""
    return _names(node) == {column} and _is_of_a_value(node)


def _names(node: Any) -> set[str]:
    try:
        return set(_expression(node).meta.root_names())
    except (pl.exceptions.PolarsError, ValueError):
        return set()


def _is_of_a_value(node: Any) -> bool:
    kind, content = _only(node)
    if kind == "Column":
        return True
    if kind == "Literal":
        return _only(content)[0] in {"Scalar", "Dyn"}
    if kind == "BinaryExpr":
        of_a_value = content["op"] in _COMPARISONS | _CONNECTIVES
        return of_a_value and all(_is_of_a_value(content[side]) for side in ("left", "right"))
    if kind != "Function":
        return False
    family, function = _only(content["function"])
    name = _only(function)[0]
    inputs = content["input"]
    if name == "IsIn" and _only(inputs[-1])[0] == "Literal":
        # A series is a list there, not a column beside the other.
        inputs = inputs[:-1]
    return name in _OF_A_VALUE.get(family, ()) and all(map(_is_of_a_value, inputs))


class _Walk:
    def __init__(self, columns: IdColumns) -> None:
        self.parts = {
            name: part
            for part, name in zip(IdColumns._fields, columns, strict=True)
            if name is not None
        }

    def bounds(self, node: Any) -> IdBounds | None:
        """Give what a condition says of entry IDs; None if nothing."""
        kind, content = _only(node)
        if kind == "Literal":
            # Polars makes a condition that cannot hold one, such as is_in of nothing.
            constant = _evaluate(node)
            if constant is None or constant.dtype != pl.Boolean:
                return None
            return None if constant.any() else IdBounds.nothing()
        if kind == "BinaryExpr":
            return self.binary(content["op"], content["left"], content["right"])
        if kind == "Function":
            inputs = content["input"]
            name, details = _only(_only(content["function"])[1])
            if name == "IsBetween" and len(inputs) == 3:
                return self.between(*inputs, closed=details["closed"])
            if name == "IsIn" and len(inputs) == 2:
                return self.is_in(*inputs)
        return None

    def binary(self, op: str, left: Any, right: Any) -> IdBounds | None:
        if op in _ANDS:
            return _both(self.bounds(left), self.bounds(right))
        if op in {"Or", "LogicalOr"}:
            one, other = self.bounds(left), self.bounds(right)
            return None if one is None or other is None else one | other
        column = self.column(left)
        if column is not None:
            return self.compared(column, op, right)
        column = self.column(right)
        if column is not None:
            return self.compared(column, _MIRRORED.get(op, op), left)
        return None

    def between(self, node: Any, low: Any, high: Any, *, closed: str) -> IdBounds | None:
        column = self.column(node)
        if column is None:
            return None
        above, below = _SIDES[closed]
        return _both(self.compared(column, above, low), self.compared(column, below, high))

    def is_in(self, node: Any, values: Any) -> IdBounds | None:
        column = self.column(node)
        listed = _evaluate(values)
        if column is None or listed is None:
            return None
        if listed.dtype == pl.List or isinstance(listed.dtype, pl.Array):
            # An empty list would become a null.
            listed = listed.filter(listed.list.len() > 0) if listed.dtype == pl.List else listed
            listed = listed.explode()
        if listed.null_count() > 0:
            return None
        if listed.len() == 0:
            return IdBounds.nothing()
        if column.part == "id":
            return IdBounds.ids(listed.to_list()) if listed.dtype == pl.String else None
        listed = listed.sort()
        least, greatest = _value(column, listed.head(1)), _value(column, listed.tail(1))
        if least is None or greatest is None:
            return None
        return _both(_number(column, "GtEq", least), _number(column, "LtEq", greatest))

    def compared(self, column: _Column, op: str, node: Any) -> IdBounds | None:
        """Give what a comparison of a column with a constant says."""
        constant = _evaluate(node)
        if constant is None or constant.len() != 1 or constant.null_count() > 0:
            return None
        if column.part == "id":
            return _text(op, constant.item()) if constant.dtype == pl.String else None
        value = _value(column, constant)
        return None if value is None else _number(column, op, value)

    def column(self, node: Any) -> _Column | None:
        """Give the column of an ID that an expression stands for, if it does."""
        kind, content = _only(node)
        if kind == "Column":
            part = self.parts.get(content)
            return None if part is None else _Column(part)
        if kind == "Cast":
            return self.cast(content)
        if kind == "BinaryExpr" and content["op"] == "Multiply":
            column = self.column(content["left"])
            return None if column is None else _multiplied(column, content["right"])
        if kind == "Function":
            # What is left of a zone's change are the instants, if they stay as they are.
            name, details = _only(_only(content["function"])[1])
            column = self.column(content["input"][0])
            if column is None or column.unit is None:
                return None
            if name == "ConvertTimeZone":
                return column._replace(zone=_zone(details))
            if name == "ReplaceTimeZone" and column.zone in {None, "UTC"}:
                zone = _zone(details[0])
                return column._replace(zone=zone) if zone in {None, "UTC"} else None
        return None

    def cast(self, content: Any) -> _Column | None:
        column = self.column(content["expr"])
        if column is None or column.part == "id":
            return None
        if content["options"] not in {"Strict", "NonStrict"}:
            return None
        dtype = content["dtype"]
        if isinstance(dtype, dict) and "Literal" in dtype:
            dtype = dtype["Literal"]
        name, details = _only(dtype)
        if name in _WIDER or (name == "Float64" and column.factor == 1):
            return column if column.unit is None else None
        if name == "Datetime" and column.unit is None:
            return column._replace(unit=details[0], zone=_zone(details[1]))
        return None


def _only(node: Any) -> tuple[str, Any]:
    """Give the kind of a node and what it holds."""
    if isinstance(node, dict) and len(node) == 1:
        return next(iter(node.items()))
    return (node if isinstance(node, str) else ""), None


def _zone(details: Any) -> str | None:
    """Give the name of a time zone; any name that is not understood is not UTC."""
    if details is None:
        return None
    return str(details["inner"]) if isinstance(details, dict) else str(details)


def _both(one: IdBounds | None, other: IdBounds | None) -> IdBounds | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _evaluate(node: Any) -> pl.Series | None:
    """Give the value of an expression without columns; None for any other."""
    text = json.dumps(node)
    try:
        expr = _expression(node)
        if expr.meta.root_names():
            return None
        value = pl.select(expr).to_series()
    except (pl.exceptions.PolarsError, ValueError):
        return None
    # A float is not always read back as it was: what is made of one may be off by much.
    return None if "Float" in text and not value.dtype.is_float() else value


def _value(column: _Column, constant: pl.Series) -> int | float | None:
    """Give the number that a constant is, in the terms of the column."""
    dtype = constant.dtype
    if column.unit is not None:
        units = {"ms": "Milliseconds", "us": "Microseconds", "ns": "Nanoseconds"}
        if not isinstance(dtype, pl.Datetime) or units[dtype.time_unit] != column.unit:
            return None
        return int(constant.to_physical().item())
    if dtype.is_integer():
        return int(constant.item())
    if dtype.is_float() and column.factor == 1:
        value = float(constant.item())
        return value if abs(value) < _MAX_FLOAT else None
    return None


def _multiplied(column: _Column, node: Any) -> _Column | None:
    constant = _evaluate(node)
    if column.part == "id" or column.unit is not None:
        return None
    if constant is None or constant.len() != 1 or not constant.dtype.is_integer():
        return None
    factor = constant.item()
    if factor is None or factor < 1:
        return None
    return column._replace(factor=column.factor * factor)


def _number(column: _Column, op: str, value: int | float) -> IdBounds | None:
    """Give what a comparison of a column of numbers says."""
    # The range of numbers that the value may be: a float is read back a little off.
    if isinstance(value, float):
        low, high = math.floor(value) - 1, math.ceil(value) + 1
    else:
        low = high = value
    factor = column.factor
    least, greatest = 0, _MAX_SIGNED
    if op in _EQUALITIES:
        least, greatest = -(-low // factor), high // factor
    elif op == "Gt":
        least = low // factor + 1
    elif op == "GtEq":
        least = -(-low // factor)
    elif op == "Lt":
        greatest = -(-high // factor) - 1
    elif op == "LtEq":
        greatest = high // factor
    else:
        return None
    least, greatest = min(max(least, 0), _MAX_UNSIGNED), min(greatest, _MAX_SIGNED)
    if greatest < 0:
        # No number that is at least 1 is 0 at the most.
        least, greatest = 1, 0
    if column.part == "sequence":
        return IdBounds.sequence(least, greatest) if factor == 1 else None
    # A greater number would overflow.
    sound_to = _MAX_UNSIGNED if factor == 1 else _MAX_SIGNED // factor
    return IdBounds.timestamp(least, greatest, sound_to)


def _text(op: str, text: str) -> IdBounds | None:
    """Give what a comparison of whole IDs, which are text, says."""
    if op in _EQUALITIES:
        return IdBounds.ids([text])
    if op in {"Gt", "GtEq"}:
        return IdBounds.text_from(text)
    if op in {"Lt", "LtEq"}:
        return IdBounds.text_to(text)
    return None
