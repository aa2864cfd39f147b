"""Pre-training on public images: what it learns, that it repeats, resumes and refuses."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from fedistill.errors import ConfigError, DataError
from fedistill.features.affine import STRONG, Affine, random_affine
from fedistill.features.embedding_map import fit_embedding_map
from fedistill.features.encoder_file import write_encoder
from fedistill.features.images import image_shape
from fedistill.features.self_supervised import (
    ImageEncoder,
    Recipe,
    nt_xent,
    pretrain,
    public_images,
)
from tests.encoders import proxy_with

QUICK = Recipe(epochs=3, batch=32)


def digits(num_rows: int = 96) -> np.ndarray:
    return load_digits().data[:num_rows].astype(np.float32)


def same(first: ImageEncoder, second: ImageEncoder) -> bool:
    weights = second.state_dict()
    return all(torch.equal(each, weights[name]) for name, each in first.state_dict().items())


@given(channels=st.sampled_from([1, 3]), side=st.integers(8, 500))
def test_a_shape_is_found_from_its_columns(channels: int, side: int) -> None:
    found = image_shape(channels * side**2)
    assert (found.channels, found.side) == (channels, side)
    assert found.num_columns == channels * side**2


@pytest.mark.parametrize("num_columns", [1, 49, 65, 63, 2 * 28**2, 147])
def test_rows_that_are_no_square_images_are_refused(num_columns: int) -> None:
    with pytest.raises(DataError, match=f"rows of {num_columns} columns must be square images"):
        image_shape(num_columns)


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(2, 8), dim=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_loss_is_that_of_the_paper(batch: int, dim: int, seed: int) -> None:
    """Oracle: equation 1 of Chen et al. 2020, pair by pair."""
    views = np.random.default_rng(seed).normal(size=(2 * batch, dim))
    unit = views / np.linalg.norm(views, axis=1, keepdims=True)
    losses = []
    for i in range(2 * batch):
        terms = {k: math.exp(unit[i] @ unit[k] / 0.2) for k in range(2 * batch) if k != i}
        losses.append(-math.log(terms[(i + batch) % (2 * batch)] / sum(terms.values())))
    first, second = torch.tensor(views).chunk(2)
    assert float(nt_xent(first, second, 0.2)) == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-5)


def test_without_bounds_an_image_stays_as_it_is() -> None:
    still = Affine(degrees=0, scale=0, shear=0, shift=0)
    images = torch.rand(4, 3, 9, 9)
    moved = random_affine(images, still, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved, images, atol=1e-5, rtol=0)


def test_each_image_has_a_transform_of_its_own() -> None:
    images = torch.rand(1, 1, 9, 9).repeat(3, 1, 1, 1)
    moved = random_affine(images, STRONG, torch.Generator().manual_seed(0))
    assert not torch.allclose(moved[0], moved[1], atol=1e-3)
    assert not torch.allclose(moved[1], moved[2], atol=1e-3)


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, second = (pretrain(digits(), seed=1, recipe=QUICK) for _ in range(2))
    assert same(first, second)
    assert not same(first, pretrain(digits(), seed=2, recipe=QUICK))


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_training_resumes_after_any_epoch_to_the_same_weights(tmp_path: Path, after: int) -> None:
    def stop(done: int, total: int) -> None:
        if done == after:
            raise _Stopped

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(_Stopped):
        pretrain(digits(), seed=1, recipe=QUICK, checkpoint=checkpoint, progress=stop)
    epochs: list[int] = []
    resumed = pretrain(
        digits(),
        seed=1,
        recipe=QUICK,
        checkpoint=checkpoint,
        resume=True,
        progress=lambda done, total: epochs.append(done),
    )
    assert epochs == list(range(after + 1, 4))
    assert same(resumed, pretrain(digits(), seed=1, recipe=QUICK))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    pretrain(digits(), seed=1, recipe=QUICK, checkpoint=checkpoint)
    others = [
        (digits() + 1, 1, QUICK),
        (digits(), 2, QUICK),
        (digits(), 1, replace(QUICK, epochs=4)),
    ]
    for rows, seed, recipe in others:
        with pytest.raises(DataError, match="must be of the same images, seed and settings"):
            pretrain(rows, seed=seed, recipe=recipe, checkpoint=checkpoint, resume=True)


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match="cannot be read"):
        pretrain(digits(), seed=1, recipe=QUICK, checkpoint=checkpoint, resume=True)


def test_bad_images_are_refused() -> None:
    holey = digits()
    holey[3, 5] = np.nan
    for rows, said in [
        (holey, "image 3 must have all its pixels"),
        (digits()[:63], "images=63 must be at least 64"),
        (np.ones((80, 64), np.float32), "must not be all the same"),
        (np.ones((80, 65), np.float32), "rows of 65 columns"),
    ]:
        with pytest.raises(DataError, match=said):
            public_images(rows)


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("batch", 1), ("temperature", 0.0)])
def test_settings_out_of_bounds_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}={value} must be"):
        Recipe(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_file_answers_as_the_network_and_a_run_takes_it(tmp_path: Path, channels: int) -> None:
    rows = np.tile(digits(), (1, channels))
    encoder = pretrain(rows, seed=0, recipe=replace(QUICK, epochs=1))
    path = tmp_path / "encoder.onnx"
    sha256 = write_encoder(encoder, path)
    content = path.read_bytes()
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert str(Path(__file__).parents[2]).encode() not in content
    images = public_images(rows)
    with torch.inference_mode():
        expected = encoder(images).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(None, {"images": images.numpy()})[0], expected, atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    assert fit_embedding_map(proxy_with(str(path), rows)).num_features > 2


@pytest.mark.slow
def test_neighbours_of_embeddings_know_more_than_neighbours_of_pixels() -> None:
    """One label of a neighbour, five labels a class: at least two points more right than by pixels.

    Mean of 50 draws of which rows are labelled; the same draws for both.
    """
    data = load_digits()
    rows, labels = data.data.astype(np.float32), data.target
    encoder = pretrain(rows, seed=0, recipe=Recipe(epochs=100, batch=256))
    with torch.inference_mode():
        embedded = encoder(public_images(rows)).numpy()

    def accuracy(values: np.ndarray, draw: int) -> float:
        random = np.random.default_rng(draw)
        known = np.concatenate(
            [random.choice(np.flatnonzero(labels == each), 5, replace=False) for each in range(10)]
        )
        others = np.setdiff1d(np.arange(len(rows)), known)
        model = KNeighborsClassifier(1).fit(values[known], labels[known])
        return float(model.score(values[others], labels[others]))

    gains = [accuracy(embedded, draw) - accuracy(rows, draw) for draw in range(50)]
    assert np.mean(gains) > 0.02
