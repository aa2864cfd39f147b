"""Who may be a white-box teacher, and what a recipe may compare with it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import nn

from fedistill.data import ProxySet, numbers
from fedistill.distill.guide import find_guide
from fedistill.distill.network_students import make_student
from fedistill.distill.public_teacher import PublicTeacher, public_teacher
from fedistill.distill.recipes import RecipePlan
from fedistill.distill.training import Learning, check_recipe
from fedistill.errors import ConfigError

HERE = "tests.distill.test_public_teacher"


def proxy_set(columns: int = 5) -> ProxySet:
    rows = np.random.default_rng(0).normal(size=(50, columns)).astype(np.float32)
    return ProxySet(schema=numbers(f"x{place}" for place in range(columns)), rows=rows)


def good(num_columns: int, num_classes: int) -> nn.Module:
    layers = nn.Linear(num_columns, 12), nn.ReLU(), nn.Linear(12, num_classes)
    return nn.Sequential(*layers)


def of_two(num_columns: int, num_classes: int) -> nn.Module:
    return nn.Linear(num_columns, 2)


def of_eight_columns(num_columns: int, num_classes: int) -> nn.Module:
    return nn.Linear(8, num_classes)


def no_network(num_columns: int, num_classes: int) -> int:
    return num_columns


def blind(num_columns: int, num_classes: int) -> nn.Module:
    return nn.Linear(num_columns, num_classes)


def plan_of(losses: dict, **keys: object) -> RecipePlan:
    stage = {"name": "a", "epochs": 1, "losses": losses}
    return RecipePlan.model_validate({"stages": [stage], **keys})


def write_onnx(path: Path, output: str, weights: np.ndarray) -> None:
    nodes = [helper.make_node("MatMul", ["rows", "w"], ["z"])]
    last = "Softmax" if output == "probabilities" else "Identity"
    nodes.append(helper.make_node(last, ["z"], [output]))
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", len(weights)])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel())],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def test_a_network_answers_rows_and_is_never_trained() -> None:
    proxy = proxy_set()
    teacher = public_teacher(f"{HERE}:good", proxy, 3)
    assert teacher.answer(proxy.rows).shape == (50, 3)
    assert teacher.module is not None
    assert not teacher.module.training
    assert not any(each.requires_grad for each in teacher.module.parameters())


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_an_onnx_file_gives_logits_up_to_what_softmax_removes(tmp_path: Path, output: str) -> None:
    proxy, weights = proxy_set(), np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    write_onnx(tmp_path / "teacher.onnx", output, weights)
    teacher = public_teacher(str(tmp_path / "teacher.onnx"), proxy, 3)
    said = teacher.answer(proxy.rows).softmax(dim=1)
    expected = torch.from_numpy(proxy.rows @ weights).softmax(dim=1)
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-4)
    assert teacher.module is None


def test_a_table_of_logits_knows_the_proxy_rows_and_no_others(tmp_path: Path) -> None:
    proxy, logits = proxy_set(), torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    save_file({"logits": logits}, tmp_path / "t.safetensors")
    teacher = public_teacher(str(tmp_path / "t.safetensors"), proxy, 3)
    asked = np.concatenate([proxy.rows[[7, 3]], proxy.rows[[0]] + 1])
    said = teacher.answer(asked)
    torch.testing.assert_close(said[:2], logits[[7, 3]])
    assert said[2].isnan().all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{HERE}:nothing", "must make a network when called with the numbers of columns and"),
        (f"{HERE}:no_network", "makes a int, which must be a torch.nn.Module"),
        (f"{HERE}:of_two", r"gives shape \(8, 2\) and must give 3 finite logits for each of 8"),
        (f"{HERE}:of_eight_columns", r"must take \(batch, 5\) float32 with NaN"),
        ("/nowhere/t.safetensors", "must be a safetensors file with a tensor 'logits'"),
        ("/nowhere/t.onnx", "must be an ONNX file"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        public_teacher(name, proxy_set(), 3)
    assert str(refused.value).startswith(f"public-teacher={name!r}")


def test_files_of_the_wrong_shape_or_names_are_refused(tmp_path: Path) -> None:
    save_file({"logits": torch.zeros(49, 3)}, tmp_path / "t.safetensors")
    with pytest.raises(ConfigError, match=r"gives shape \(49, 3\)"):
        public_teacher(str(tmp_path / "t.safetensors"), proxy_set(), 3)
    write_onnx(tmp_path / "t.onnx", "scores", np.zeros((5, 3), dtype=np.float32))
    with pytest.raises(ConfigError, match=r"has outputs \['scores'\]"):
        public_teacher(str(tmp_path / "t.onnx"), proxy_set(), 3)


def found(plan: RecipePlan, teacher: str = "good"):
    proxy = proxy_set()
    student = make_student("mlp", proxy, 3)
    named = public_teacher(f"{HERE}:{teacher}", proxy, 3) if teacher else None
    return find_guide(plan, student, named, proxy)


def test_noised_answers_are_no_white_box_teacher() -> None:
    for term in ("divergence", "decoupled", "features", "attention", "distances", "angles"):
        with pytest.raises(ConfigError, match=f"{term} compares with a teacher whose logits are"):
            found(plan_of({term: 1.0}), teacher="")
    assert found(plan_of({"log-odds": 1.0}), teacher="").teacher is None


def test_layers_are_guessed_by_depth() -> None:
    guide = found(plan_of({"features": 1.0, "divergence": 1.0}))
    assert guide.student_layers == {"shallow": "1"}
    assert guide.teacher_layers == {"shallow": "1"}
    assert guide.left_out == ()


def test_a_layer_that_there_is_not_is_named_with_the_nearest() -> None:
    layers = {"deep": {"student": "1", "teacher": "relu"}}
    with pytest.raises(ConfigError, match="has no layer 'relu': choose one of '0', '1', '2'"):
        found(plan_of({"features": 1.0}, layers=layers))


def test_what_cannot_be_compared_is_refused_unless_it_is_optional(tmp_path: Path) -> None:
    mixed = {"divergence": 0.5, "attention": 0.5}
    with pytest.raises(ConfigError, match="attention needs layers whose outputs are images"):
        found(plan_of(mixed))
    guide = found(plan_of(mixed, optional=["attention"]))
    plan = plan_of(mixed)
    assert guide.left_out == ("attention",)
    assert guide.mix(plan.stages[0].mix).divergence == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"stages\[0\]: no term is left without attention"):
        found(plan_of({"attention": 1.0}, optional=["attention"]))
    with pytest.raises(ConfigError, match="features needs layers that can be guessed"):
        found(plan_of({"features": 1.0}), teacher="blind")


def test_a_file_shows_no_layers() -> None:
    hidden = PublicTeacher("/a/b.onnx", lambda rows: torch.zeros(len(rows), 3))
    proxy = proxy_set()
    student = make_student("mlp", proxy, 3)
    with pytest.raises(ConfigError, match=r"features needs the layers of public-teacher='/a/b"):
        find_guide(plan_of({"features": 1.0}), student, hidden, proxy)


def test_a_recipe_is_checked_with_its_student_before_a_run(tmp_path: Path) -> None:
    proxy = proxy_set()
    with pytest.raises(ConfigError, match="recipe='four-term': divergence compares with a teacher"):
        check_recipe(proxy, 3, Learning(recipe="four-term"))
    plan, _, guide = check_recipe(
        proxy, 3, Learning(recipe="four-term", public_teacher=f"{HERE}:good")
    )
    assert plan.epochs > 0
    assert guide.left_out == ("attention",)
    mine = tmp_path / "mine.toml"
    stage = '[[stages]]\nname = "a"\nepochs = 1\nlosses = { log-odds = 1 }\n'
    mine.write_text(stage + "cutmix = 1.0\n")
    with pytest.raises(ConfigError, match="cutmix patches images, and student='mlp' learns rows"):
        check_recipe(proxy, 3, Learning(recipe=str(mine)))
    mine.write_text("jitter = 0.05\n" + stage)
    with pytest.raises(ConfigError, match=r"jitter=0\.05 moves amounts of a table"):
        check_recipe(proxy_set(64), 3, Learning(recipe=str(mine), student="cnn"))
