"""The encoder that a simulation trains on its own proxy images, once for each proxy set.

The file lies in `$FEDISTILL_HOME/encoders`, named by a hash of the images and of the settings, and
every process of a run, and every later run on these images, finds it there. Training goes on after
its last epoch where an earlier run was stopped. Public rows alone go in.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedistill.data import ProxySet
from fedistill.errors import ConfigError
from fedistill.federation.run_folder import home

Progress = Callable[[int, int], None]

BATCH = 128
NARROWER = 4
"""Of the encoder of `fedistill encoder train`: a CPU trains it within minutes."""

_SEED = 0
"""Not the run's: other seeds of the student ask the same question, whose answer is free."""


def own_encoder(proxy: ProxySet, epochs: int, progress: Progress | None = None) -> Path:
    """The file of the proxy images' own encoder, trained now if it is not there.

    Args:
        proxy: Square images, without an encoder.
        epochs: Passes over the images.
        progress: Called with epochs done and epochs in all while it is trained.

    Raises:
        ConfigError: The folder cannot be written.
        DataError: The rows are no images, miss a pixel, or are too few.
    """
    settings = repr((proxy.rows.shape, epochs, BATCH, NARROWER, _SEED)).encode()
    content = np.ascontiguousarray(proxy.rows).tobytes()
    name = hashlib.sha256(settings + content).hexdigest()[:32]
    path = home() / "encoders" / f"{name}.onnx"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"encoder='self-supervised' is kept in {str(path.parent)!r}, which must be writable "
            f"({error.strerror}): set FEDISTILL_HOME to a folder that is"
        ) from error
    try:
        # Another process of the run may be training it: its file serves all.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            _train(proxy, path, epochs, progress)
    finally:
        os.close(lock)
    return path


def _train(proxy: ProxySet, path: Path, epochs: int, progress: Progress | None) -> None:
    import torch

    from fedistill.features.encoder_file import write_encoder
    from fedistill.features.self_supervised import Recipe, pretrain

    checkpoint = path.with_suffix(".checkpoint")
    encoder = pretrain(
        proxy.rows,
        seed=_SEED,
        recipe=Recipe(epochs=epochs, batch=BATCH, narrower=NARROWER),
        device="cuda" if torch.cuda.is_available() else "cpu",
        checkpoint=checkpoint,
        resume=checkpoint.is_file(),
        progress=progress,
    )
    write_encoder(encoder, path)
    checkpoint.unlink(missing_ok=True)
