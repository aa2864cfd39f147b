"""What one text in a table stands for: nothing, a number, a boolean, a date or a category.

Each answer depends on the text alone. A CSV column comes as numbers or as text depending on all its
rows, so whatever Arrow reads as a number must be the same number here.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from fedistill.data.schema import Kind

MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("?", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
"""Spellings of a missing value: Arrow's, and the `?` of many public files."""

_NAN = re.compile(r"[+-]?nan(\(\w*\))?", re.IGNORECASE)
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE = 1e15


def clean(text: str) -> str:
    """The text without surrounding blanks; "" where it spells a missing value."""
    text = text.strip()
    return "" if text in MISSING or _NAN.fullmatch(text) else text


def number(text: str) -> float | None:
    """The number, perhaps infinite, or None."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return _hexadecimal(text)


def boolean(text: str) -> float | None:
    """1.0 for true and 0.0 for false in any case, or None."""
    return {"true": 1.0, "false": 0.0}.get(text.lower())


def date(text: str) -> float | None:
    """Days since 1970-01-01 of an ISO date or time, UTC unless it names an offset; or None."""
    if not _DATE.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (aware - _EPOCH) / timedelta(days=1)


def category(text: str) -> str:
    """One spelling for what a file may store as text, number or boolean: `3` for `3.0`."""
    value = number(text)
    if value is not None:
        return spelling(np.float64(value), Kind.NUMBER)
    return text if boolean(text) is None else text.lower()


def spelling(value: Any, kind: Kind) -> str:
    """The text of a number, boolean or date as a column holds it, a numpy scalar."""
    plain = float(value)
    if kind is Kind.BOOLEAN:
        return "true" if plain else "false"
    if kind is Kind.DATE:
        whole = plain == math.floor(plain)
        return str(np.datetime64(round(plain if whole else plain * 86_400), "D" if whole else "s"))
    return str(int(plain)) if abs(plain) < _WHOLE and plain == int(plain) else str(value)


def _hexadecimal(text: str) -> float | None:
    """As Arrow reads it: 64 bits in two's complement."""
    if not _HEX.fullmatch(text):
        return None
    value = int(text, 16)
    return float(value - 2**64 if value >= 2**63 else value)
