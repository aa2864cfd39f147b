"""What error messages say about names and values."""

import difflib
from collections import Counter
from collections.abc import Iterable

from fedistill.errors import DataError

_SHOWN = 8
_LONGEST_TEXT = 40


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


def shown(text: str) -> str:
    """The text, quoted, and cut where it is long."""
    return repr(text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "...")


def repeated(names: Iterable[str]) -> list[str]:
    """Names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def check_names(names: Iterable[str], expected: tuple[str, ...], whose: str) -> None:
    """Refuse columns that are not the proxy set's, in any order.

    Raises:
        DataError: Lists what is missing, unexpected and repeated.
    """
    given = tuple(names)
    missing = [name for name in expected if name not in set(given)]
    unexpected = [name for name in given if name not in set(expected)]
    twice = repeated(given)
    complaints = []
    if missing:
        complaints.append(f"missing {_first_missing(missing, unexpected)}")
    if unexpected:
        complaints.append(f"unexpected {listing(unexpected)}")
    if twice:
        complaints.append(f"repeated {listing(twice)}")
    if complaints:
        raise DataError(
            f"{whose}columns must be the proxy set's {len(expected)}, in any order: "
            f"{'; '.join(complaints)}: rename, add or drop columns until they agree"
        )


def _first_missing(missing: list[str], unexpected: list[str]) -> str:
    """The missing names, the first one with the unexpected name that it may go by."""
    found = nearest(missing[0], unexpected)
    return listing(missing) + (f" (is {missing[0]!r} called {found!r}?)" if found else "")
