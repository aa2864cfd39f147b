import importlib.metadata
from functools import cache

import pytest

from fedistill.teachers import registry

_entry_points = cache(importlib.metadata.entry_points)


@pytest.fixture(autouse=True)
def _metadata_of_packages_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes ten times as long as the rest of a small release."""
    monkeypatch.setattr(registry, "entry_points", _entry_points)
