"""One column as NumPy arrays, the same whatever engine it came from.

Here is decided what two tables mean by the same value: -0.0 is 0.0, NaN is a missing number, an integer equals the
float of its size, a category is its text, an instant is compared in UTC, a list is its written form.
"""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["number", "flag", "text", "time", "span", "nested"]
Array = NDArray[Any]

_NO_KEY = np.uint64(0x6A09E667F3BCC909)  # what a missing value counts as; the first digits of the root of two
_EXACT = 2.0**53  # beyond it a float no longer holds every integer


@dataclass(frozen=True, slots=True)
class Column:
    """Values and where they are missing (their value is then a placeholder).

    ``kind`` fixes the type of ``values``: "number" int64, uint64 or float64; "flag" bool; "time" datetime64 in UTC;
    "span" timedelta64; "text" and "nested" objects, all of them str.
    """

    name: str
    kind: Kind
    values: Array
    missing: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)

    def at(self, positions: Array) -> Column:
        """Return the rows at these positions (or under this mask)."""
        return Column(self.name, self.kind, self.values[positions], self.missing[positions])

    def numbers(self) -> NDArray[np.float64]:
        """Return float64, NaN where missing. Instants are seconds since 1970; text that is no number becomes NaN."""
        if self.kind in ("text", "nested"):
            return np.array([_number(v) for v in self.values], dtype=np.float64)
        values = self.values
        if self.kind == "time":
            values = (values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
        elif self.kind == "span":
            values = values / np.timedelta64(1, "s")
        values = values.astype(np.float64)
        values[self.missing] = np.nan
        return values

    def texts(self) -> Array:
        """Return the values as text, as they are compared with a column of text; "" where missing."""
        if self.kind in ("text", "nested"):
            return self.values
        return np.array(
            ["" if gone else written(v) for v, gone in zip(self.values, self.missing, strict=True)], dtype=object
        )

    def codes(self) -> tuple[NDArray[np.int64], list[Any]]:
        """Return a small number for each distinct value (-1 where missing) and the values, in the order of first sight."""
        if self.kind not in ("text", "nested"):
            levels, codes = np.unique(self.values, return_inverse=True)
            codes = codes.astype(np.int64)
            codes[self.missing] = -1
            return codes, list(levels)
        seen: dict[str, int] = {}
        codes = np.fromiter((seen.setdefault(v, len(seen)) for v in self.values), np.int64, len(self.values))
        codes[self.missing] = -1
        return codes, list(seen)

    def keys(self, *, text: bool = False, real: bool = False) -> NDArray[np.uint64]:
        """Return 64 bits for each value, equal for equal values. Different values may share them: verify.

        ``text`` compares by the written form, ``real`` as float64; both sides of a comparison need the same.
        """
        if text or self.kind in ("text", "nested"):
            keys = np.fromiter(map(hash, self.texts()), np.int64, len(self)).view(np.uint64)
        elif self.kind == "number" and not real and self.values.dtype.kind in "iu":
            keys = self.values.astype(np.int64, copy=False).view(np.uint64)
        elif self.kind in ("number", "flag"):
            keys = (self.values.astype(np.float64) + 0.0).view(np.uint64)  # + 0.0 makes -0.0 the same as 0.0
        else:
            unit = "datetime64[ns]" if self.kind == "time" else "timedelta64[ns]"
            keys = self.values.astype(unit).view(np.uint64)
        return np.where(self.missing, _NO_KEY, keys) if self.missing.any() else keys


def same(left: Column, right: Column) -> NDArray[np.bool_]:
    """Tell for each row whether two columns of one length hold the same value. Two missing values are the same."""
    if comparable_as(left, right) == "text":
        equal = left.texts() == right.texts()
    else:
        equal = left.values == right.values
    present = ~(left.missing | right.missing)
    return np.asarray((equal & present) | (left.missing & right.missing), dtype=np.bool_)


def comparable_as(left: Column, right: Column) -> Literal["own", "real", "text"]:
    """Say what two columns have to be turned into before their values can be compared."""
    numeric = ("number", "flag")
    if left.kind in numeric and right.kind in numeric:
        both_int = left.values.dtype.kind in "iu" and right.values.dtype.kind in "iu"
        return "own" if both_int else "real"
    return "own" if left.kind == right.kind else "text"


def written(value: Any) -> str:
    """Return a value as a file of text would hold it: 3.0 is "3", an instant is in ISO form."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)
    if isinstance(value, np.datetime64):
        stamp = str(value.astype("datetime64[us]")).replace("T", " ")
        return stamp.removesuffix(".000000").removesuffix(" 00:00:00")
    return str(value)


def column_of(name: str, values: Any) -> Column:
    """Make a column of a NumPy array or of any sequence of Python objects."""
    array = values if isinstance(values, np.ndarray) else _as_array(values)
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        inner = column_of(name, array.filled(_placeholder(array)))
        return Column(name, inner.kind, inner.values, inner.missing | mask)
    match array.dtype.kind:
        case "b":
            return Column(name, "flag", array, np.zeros(len(array), np.bool_))
        case "i" | "u":
            return Column(name, "number", _integers(array), np.zeros(len(array), np.bool_))
        case "f":
            return number_column(name, array)
        case "M":
            return Column(name, "time", array, np.isnat(array))
        case "m":
            return Column(name, "span", array, np.isnat(array))
        case "U" | "S":
            texts = array.astype(np.str_).astype(object)
            return Column(name, "text", texts, np.zeros(len(array), np.bool_))
        case "O":
            return _of_objects(name, array)
    return _of_objects(name, np.array(list(array), dtype=object))


def number_column(name: str, values: Array) -> Column:
    """Make a column of floats; NaN is missing."""
    values = values.astype(np.float64, copy=False)
    return Column(name, "number", values, np.isnan(values))


def text_column(name: str, values: Iterable[Any], missing: NDArray[np.bool_]) -> Column:
    """Make a column of text; what stands where it is missing does not matter."""
    texts = np.fromiter(("" if gone else v for v, gone in zip(values, missing, strict=True)), object, len(missing))
    return Column(name, "text", texts, missing)


def _as_array(values: Any) -> Array:
    """Return an array without NumPy's own idea of what [1, "a"] or [[1], [2, 3]] should become."""
    if hasattr(values, "__array__") and not isinstance(values, (list, tuple)):
        return np.asarray(values)
    items = list(values)
    kinds = {type(v) for v in items}
    if kinds and kinds <= {int, float} and all(isinstance(v, float) or abs(v) < 2**63 for v in items):
        return np.asarray(items)
    if kinds == {bool}:
        return np.asarray(items)
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def _placeholder(array: Array) -> Any:
    return {"O": "", "U": "", "S": b"", "M": np.datetime64(0, "s"), "m": np.timedelta64(0, "s")}.get(
        array.dtype.kind, 0
    )


def _integers(array: Array) -> Array:
    return array if array.dtype == np.uint64 and array.size and array.max() >= 2**63 else array.astype(np.int64)


def _of_objects(name: str, array: Array) -> Column:
    missing = np.fromiter((_is_missing(v) for v in array), np.bool_, len(array))
    present = list(array[~missing])
    kinds = {type(v) for v in present}
    if not kinds or all(issubclass(k, str) for k in kinds):
        return text_column(name, map(str, array), missing)
    if all(issubclass(k, (bool, np.bool_)) for k in kinds):
        return Column(name, "flag", _filled(present, missing, np.dtype(bool)), missing)
    if all(issubclass(k, (int, np.integer)) for k in kinds) and all(-(2**63) <= v < 2**63 for v in present):
        return Column(name, "number", _filled(present, missing, np.dtype(np.int64)), missing)
    if all(issubclass(k, (int, float, np.integer, np.floating, decimal.Decimal)) for k in kinds):
        return Column(name, "number", _filled([float(v) for v in present], missing, np.dtype(np.float64)), missing)
    if all(issubclass(k, (datetime.date, np.datetime64)) for k in kinds):
        return Column(
            name, "time", _filled([_instant(v) for v in present], missing, np.dtype("datetime64[us]")), missing
        )
    if all(issubclass(k, (datetime.timedelta, np.timedelta64)) for k in kinds):
        return Column(name, "span", _filled(present, missing, np.dtype("timedelta64[us]")), missing)
    plain = all(issubclass(k, (str, bool, int, float, np.generic, decimal.Decimal, datetime.date)) for k in kinds)
    texts = (("" if gone else written(v) if plain else _nested(v)) for v, gone in zip(array, missing, strict=True))
    return Column(name, "text" if plain else "nested", np.fromiter(texts, object, len(array)), missing)


def _filled(present: Sequence[Any], missing: NDArray[np.bool_], dtype: np.dtype[Any]) -> Array:
    values = np.zeros(len(missing), dtype)
    if len(present):
        values[~missing] = np.array(list(present), dtype=dtype)
    return values


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, (float, np.floating, decimal.Decimal)):
        return math.isnan(value)
    # NaT of pandas and NumPy, and pandas.NA: none of them equals itself.
    return type(value).__name__ in ("NaTType", "NAType") or (isinstance(value, np.datetime64) and bool(np.isnat(value)))


def _instant(value: Any) -> Any:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


def _nested(value: Any) -> str:
    """Return one written form for a list, dictionary or array, whatever class holds it."""
    if isinstance(value, np.ndarray) or (hasattr(value, "tolist") and not isinstance(value, np.generic)):
        value = value.tolist()
    elif hasattr(value, "to_list"):
        value = value.to_list()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_nested(v)}" for k, v in sorted(value.items(), key=lambda i: str(i[0]))) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_nested, value))) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_nested, value)) + "]"
    return repr(value) if isinstance(value, (str, bytes)) else written(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
