"""How far a training has come, told to whoever wants to know."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is in all."""


def shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part as that of the whole, `before` of whose `total` were done earlier."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
