"""Which white-box teacher a recipe may compare with, and in which layers; the rest is refused.

The sites' ensemble is no such teacher, and a recipe cannot make it one: its answers are noised, so
a divergence from their softmax is biased, and nothing of its inside leaves a site.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fedistill.data import ProxySet
from fedistill.distill.feature_losses import DEPTHS, FeatureMatching
from fedistill.distill.layers import check_layer, guessed_layers, outputs_of
from fedistill.distill.loss_mix import LossMix, without
from fedistill.distill.public_teacher import PublicTeacher
from fedistill.distill.recipes import RecipePlan
from fedistill.distill.students import Student
from fedistill.errors import ConfigError

_TRIED = 8


@dataclass(frozen=True, kw_only=True)
class Guide:
    """A white-box teacher as a recipe uses it.

    Attributes:
        teacher: None where no term compares with one.
        student_layers: By depth, the layers of `student.body` that are compared.
        teacher_layers: The same of the teacher's module.
        images: Depths at which both are images, (batch, channels, height, width).
        shapes: By depth, shapes of the student's and of the teacher's outputs.
        left_out: Optional terms that cannot be had.
    """

    teacher: PublicTeacher | None = None
    student_layers: Mapping[str, str] = field(default_factory=dict)
    teacher_layers: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[torch.Size, torch.Size]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def deepest(self) -> str:
        """The depth whose outputs stand for a row as a whole."""
        return list(self.student_layers)[-1]

    def mix(self, wanted: LossMix) -> LossMix:
        """A stage's weights without the terms that are left out.

        Raises:
            ConfigError: Nothing is left.
        """
        return without(wanted, *self.left_out) if self.left_out else wanted

    def matching(self) -> FeatureMatching:
        """Fresh adapters from the student's to the teacher's features.

        Raises:
            ConfigError: The layers of a depth do not fit each other.
        """
        return FeatureMatching(self.shapes)


def find_guide(
    plan: RecipePlan, student: Student, teacher: PublicTeacher | None, proxy: ProxySet
) -> Guide:
    """What the recipe's white-box terms compare, tried on a few proxy rows.

    Raises:
        ConfigError: A term needs what the teacher or the student has not, and is not optional, or a
            stage has no other term.
    """
    if not plan.white_box:
        return Guide()
    if teacher is None:
        raise ConfigError(
            f"{plan.white_box[0]} compares with a teacher whose logits are exact, and the sites' "
            "answers are noised, whose softmax is biased: name a public-teacher, or learn the "
            "answers by log-odds or cross-entropy"
        )
    why: dict[str, str] = {}
    guide = Guide(teacher=teacher)
    if plan.inside and teacher.module is None:
        hidden = f"the layers of public-teacher={teacher.name!r}, and a file shows its answers only"
        why = dict.fromkeys(plan.inside, hidden)
    elif plan.inside and teacher.module is not None:
        guide = _compared(plan, student, teacher.module, teacher, proxy)
        if not guide.student_layers:
            guessed = "layers that can be guessed: activations as modules of their own in both"
            why = dict.fromkeys(plan.inside, guessed)
        elif "attention" in plan.inside and not guide.images:
            why = {"attention": "layers whose outputs are images on both sides"}
    for name, need in why.items():
        if name not in plan.optional:
            raise ConfigError(
                f"{name} needs {need}: leave it out, name it in `optional`, or name the layers in "
                "`layers` if there are such"
            )
    guide = replace(guide, left_out=tuple(why))
    _check_stages(plan, guide)
    return guide


def _check_stages(plan: RecipePlan, guide: Guide) -> None:
    for number, stage in enumerate(plan.stages):
        try:
            guide.mix(stage.mix)
        except ConfigError as error:
            raise ConfigError(f"stages[{number}]: {error}") from None
    if "features" in plan.inside and "features" not in guide.left_out:
        guide.matching()


def _compared(
    plan: RecipePlan,
    student: Student,
    module: nn.Module,
    teacher: PublicTeacher,
    proxy: ProxySet,
) -> Guide:
    """The layers of both, and what they give."""
    if plan.layers:
        mine = {depth: pair.student for depth, pair in plan.layers.items()}
        theirs = {depth: pair.teacher for depth, pair in plan.layers.items()}
    else:
        mine, theirs = guessed_layers(student.body), guessed_layers(module)
        both = [depth for depth in DEPTHS if depth in mine and depth in theirs]
        mine, theirs = ({depth: each[depth] for depth in both} for each in (mine, theirs))
    for depth in mine:
        check_layer(student.body, mine[depth], "the student's body")
        check_layer(module, theirs[depth], f"public-teacher={teacher.name!r}")
    rows = torch.tensor(proxy.rows[:_TRIED])
    with torch.no_grad():
        codes = student.encoding(rows)
    seen, hints = outputs_of(student.body, mine, codes), outputs_of(module, theirs, rows)
    shapes = {depth: (_shape(seen, depth), _shape(hints, depth)) for depth in mine}
    return Guide(
        teacher=teacher,
        student_layers=mine,
        teacher_layers=theirs,
        images=tuple(d for d, pair in shapes.items() if all(len(each) == 4 for each in pair)),
        shapes=shapes,
    )


def _shape(outputs: Mapping[str, Tensor], depth: str) -> torch.Size:
    if depth not in outputs or not isinstance(outputs[depth], Tensor):
        raise ConfigError(
            f"layers.{depth} names a layer that gives no tensor when rows are answered: name "
            "another"
        )
    return outputs[depth].shape
