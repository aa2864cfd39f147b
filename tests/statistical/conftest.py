import importlib.metadata
from functools import cache

import pytest
import torch

from fedistill.teachers import registry

_entry_points = cache(importlib.metadata.entry_points)


@pytest.fixture(autouse=True)
def _metadata_of_packages_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes ten times as long as the rest of a small release."""
    monkeypatch.setattr(registry, "entry_points", _entry_points)


@pytest.fixture(autouse=True)
def _only_the_processor_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each kind of accelerator that is not there, torch keeps the text of the call stack, which
    takes as long as a small training.
    """
    for accelerator in (torch.cuda, torch.mps, torch.xpu, torch.mtia):
        monkeypatch.setattr(accelerator, "_is_in_bad_fork", lambda: True)
