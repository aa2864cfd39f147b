"""`fedistill encoder train`: public images become the file that `encoder` takes."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest

from fedistill.cli.encoder_training import train_encoder
from fedistill.cli.proxy_file import write_proxy
from fedistill.errors import BadInput
from tests.encoders import write_digits

Command = Callable[..., CompletedProcess[str]]


def run(proxy: Path, out: Path, **changed: object) -> object:
    asked: dict[str, object] = {
        "epochs": 1,
        "seed": 0,
        "device": "cpu",
        "ignore_columns": ("y",),
        "resume": False,
        "force": False,
        "progress": lambda done, total: None,
    }
    return train_encoder(proxy, out, **{**asked, **changed})  # type: ignore[arg-type]


def few_digits(folder: Path) -> Path:
    with np.load(write_digits(folder / "all.npz")) as archive:
        path = folder / "digits.npz"
        np.savez(path, X=archive["X"][:80], y=archive["y"][:80], features=archive["features"])
    return path


def test_the_command_writes_an_encoder(fedistill: Command, tmp_path: Path) -> None:
    digits, out = few_digits(tmp_path), tmp_path / "digits.onnx"
    done = fedistill(
        "encoder", "train", str(digits), str(out), "--epochs", "1", "--ignore-columns", "y"
    )
    assert done.returncode == 0, done.stderr
    assert "learned from 80 images; 256 numbers for each" in done.stdout
    onnx.checker.check_model(str(out))
    assert not out.with_name("digits.onnx.checkpoint").exists()


def test_a_table_and_the_proxy_set_made_of_it_give_the_same_file(tmp_path: Path) -> None:
    digits, proxy = few_digits(tmp_path), tmp_path / "proxy.bin"
    write_proxy(digits, proxy, ignore_columns=("y",), encoder="", force=False)
    of_table = run(digits, tmp_path / "table.onnx")
    assert of_table == run(proxy, tmp_path / "proxy.onnx", ignore_columns=())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"device": "tpu"}, "--device='tpu' must be one of auto, cpu, cuda"),
        ({"resume": True}, "begin without --resume"),
        ({"ignore_columns": ("z",)}, "--ignore-columns: 'z' must be one of"),
        ({"ignore_columns": ("y", "pixel_3")}, "rows of 63 columns must be square images"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        run(few_digits(tmp_path), tmp_path / "digits.onnx", **changed)


def test_files_are_not_replaced_unless_asked_and_have_a_known_suffix(tmp_path: Path) -> None:
    digits, out = few_digits(tmp_path), tmp_path / "digits.onnx"
    out.write_bytes(b"before")
    with pytest.raises(BadInput, match="is there already: give --force"):
        run(digits, out)
    with pytest.raises(BadInput, match=r"must end in \.onnx"):
        run(digits, tmp_path / "digits.pt")
    with pytest.raises(BadInput, match="must be a folder"):
        run(digits, tmp_path / "nowhere" / "digits.onnx")
    run(digits, out, force=True)
    assert out.read_bytes() != b"before"
