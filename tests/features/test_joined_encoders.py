"""Encoders side by side: their embeddings as one, in one file, that a student may begin as."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fedistill.cli.encoder_training import train_encoder
from fedistill.data import ProxySet, numbers
from fedistill.data.encoder import Encoder
from fedistill.distill.network_students import NetworkStudent, make_student
from fedistill.features.encoder_file import read_network, write_encoder
from fedistill.features.joined_encoders import JoinedEncoders
from fedistill.features.onnx_encoder import load_onnx
from fedistill.features.self_supervised import ImageEncoder, Recipe, pretrain

QUICK = Recipe(epochs=1, batch=40, narrower=8)
ROWS = load_digits().data[:80].astype(np.float32)


@pytest.fixture(scope="module")
def encoders() -> list[ImageEncoder]:
    return [pretrain(ROWS, seed=seed, recipe=QUICK) for seed in (0, 1)]


def test_all_embeddings_together_have_unit_norm(encoders: list[ImageEncoder]) -> None:
    images = torch.tensor(ROWS).reshape(-1, 1, 8, 8)
    with torch.no_grad():
        joined = JoinedEncoders(encoders)(images)
        first, second = (encoder(images) for encoder in encoders)
    assert joined.shape == (80, 64)
    torch.testing.assert_close(joined.norm(dim=1), torch.ones(80))
    torch.testing.assert_close(joined @ joined.T, (first @ first.T + second @ second.T) / 2)


def test_the_file_answers_as_the_encoders_do_and_holds_the_first_of_them(
    encoders: list[ImageEncoder], tmp_path: Path
) -> None:
    path = tmp_path / "joined.onnx"
    joined = JoinedEncoders(encoders)
    write_encoder(joined, path)
    encode = load_onnx(path.read_bytes(), "encoder", 64)
    with torch.no_grad():
        expected = joined(torch.tensor(ROWS[:1]).reshape(1, 1, 8, 8))
    np.testing.assert_allclose(encode(ROWS[:1]), expected, atol=1e-5)
    write_encoder(encoders[0], tmp_path / "first.onnx")
    of_first = read_network((tmp_path / "first.onnx").read_bytes())
    for found, alone in zip(
        read_network(path.read_bytes()).convolutions, of_first.convolutions, strict=True
    ):
        torch.testing.assert_close(found, alone)
    proxy = ProxySet(
        schema=numbers(f"x{j}" for j in range(64)), rows=ROWS, encoder=Encoder.named(str(path))
    )
    assert isinstance(make_student("encoder", proxy, 10), NetworkStudent)


def test_the_command_trains_each_from_its_own_seed_and_goes_on_after_a_stop(
    tmp_path: Path,
) -> None:
    rows, out = tmp_path / "digits.npz", tmp_path / "digits.onnx"
    np.savez(rows, X=ROWS, y=np.zeros(80))
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 3:
            raise KeyboardInterrupt

    def train(to: Path, progress, *, resume: bool) -> str:
        made = train_encoder(
            rows,
            to,
            epochs=2,
            networks=2,
            seed=0,
            device="cpu",
            ignore_columns=("y",),
            resume=resume,
            force=False,
            progress=progress,
        )
        assert made.dimensions == 512
        return made.sha256

    with pytest.raises(KeyboardInterrupt):
        train(out, stop, resume=False)
    assert told == [(1, 4), (2, 4), (3, 4)]
    told.clear()
    resumed = train(out, lambda *each: told.append(each), resume=True)
    assert told == [(4, 4)]
    assert resumed == train(tmp_path / "whole.onnx", lambda *each: None, resume=False)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "digits.npz",
        "digits.onnx",
        "whole.onnx",
    ]
