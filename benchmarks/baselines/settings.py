"""Settings of DP-SGD that the baseline is tuned over, as many for either variant."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a user of DP-SGD chooses.

    Attributes:
        model: `linear` or `mlp` (64 hidden units).
        optimizer: `sgd`, `momentum` (0.9) or `adam`; its state starts anew each round.
        rate: Learning rate.
        clip: L2 bound on a record's gradient.
        batches: Steps an epoch; a record is in each with probability 1 / batches.
        epochs: Local epochs a round.
    """

    model: str
    optimizer: str
    rate: float
    clip: float
    batches: int
    epochs: int

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.optimizer} {self.rate:g}, clip {self.clip:g}, "
            f"q 1/{self.batches}, {self.epochs} epochs"
        )


def _settings(*lines: tuple[str, str, float, float, int, int]) -> tuple[Setting, ...]:
    return tuple(
        Setting(model=model, optimizer=optimizer, rate=rate, clip=clip, batches=batches, epochs=n)
        for model, optimizer, rate, clip, batches, n in lines
    )


SETTINGS = {
    "raw": _settings(
        ("linear", "adam", 0.009, 0.3, 10, 1),
        ("linear", "adam", 0.026, 0.7, 10, 2),
        ("linear", "sgd", 0.3, 2.0, 5, 1),
        ("linear", "sgd", 2.5, 2.0, 10, 1),
        ("linear", "momentum", 0.22, 0.7, 20, 2),
        ("mlp", "sgd", 0.4, 2.0, 10, 3),
        ("mlp", "sgd", 0.5, 1.0, 10, 3),
        ("mlp", "sgd", 0.76, 0.7, 10, 3),
        ("mlp", "momentum", 0.02, 2.0, 20, 3),
        ("mlp", "adam", 0.018, 0.1, 5, 2),
    ),
    "features": _settings(
        ("linear", "adam", 0.05, 0.7, 5, 2),
        ("linear", "adam", 0.1, 0.7, 10, 2),
        ("linear", "adam", 0.033, 1.0, 5, 3),
        ("linear", "adam", 0.048, 0.3, 2, 3),
        ("linear", "sgd", 18.0, 0.3, 10, 2),
        ("linear", "sgd", 10.0, 0.7, 5, 1),
        ("linear", "sgd", 2.7, 1.0, 1, 2),
        ("linear", "sgd", 0.36, 1.0, 1, 2),
        ("mlp", "sgd", 2.3, 0.7, 20, 3),
        ("mlp", "adam", 0.0083, 2.0, 20, 3),
    ),
}
"""Chosen from about a hundred that were scored on labelled proxy rows: inputs differ in length, so
each variant has learning rates of its own."""
