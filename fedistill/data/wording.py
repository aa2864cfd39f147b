"""What error messages say about names."""

import difflib
from collections import Counter
from collections.abc import Iterable

_SHOWN = 8


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, whatever the case; None if none does."""
    by_lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: the nearest known one, or the first of the list."""
    names = list(known)
    found = nearest(name, names)
    return f"did you mean {found!r}?" if found else f"choose one of {listing(names)}"


def listing(names: Iterable[str]) -> str:
    """The first names, quoted, and how many more there are."""
    items = list(names)
    shown = ", ".join(repr(item) for item in items[:_SHOWN])
    more = len(items) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def repeated(names: Iterable[str]) -> list[str]:
    """Names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)
