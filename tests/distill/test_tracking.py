"""What is tracked of a training, and where it lies."""

from pathlib import Path

import pytest

from fedistill.distill import session
from fedistill.distill.session import check_installed
from fedistill.errors import ConfigError
from tests.distill.test_engine import plan_of, trained

STAGE = {"epochs": 3, "losses": {"log-odds": 1.0}}


def test_tensorboard_gets_loss_and_agreement_of_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(plan_of(STAGE, validation=0.1), track="tensorboard", logs=tmp_path)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events.parent)).Reload()
    assert {"loss", "agreement"} <= set(read.Tags()["scalars"])
    losses = read.Scalars("loss")
    assert [each.step for each in losses] == [1, 2, 3]
    assert losses[-1].value < losses[0].value


@pytest.mark.parametrize(
    ("missing", "track", "message"),
    [
        ("accelerate", "none", r"a recipe needs accelerate, .*: pip install 'fedistill\[train\]'"),
        ("mlflow", "mlflow", r"track='mlflow' needs mlflow, .*: pip install 'fedistill\[mlflow\]'"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str, track: str, message: str
) -> None:
    there = lambda name: None if name == missing else object()  # noqa: E731
    monkeypatch.setattr(session, "find_spec", there)
    with pytest.raises(ConfigError, match=message):
        check_installed(track)
