"""Training a student by a recipe: stages, each with its losses, on whatever devices there are.

The loop is plain PyTorch; Hugging Face accelerate decides where it runs: a CPU, a GPU in bfloat16,
or several under `accelerate launch`, each with a copy of the model. The batch of a
recipe is that of all processes together, so the same recipe means the same training on any number.
On a CPU equal seed, material and first weights give equal weights for one number of threads, also
after a stop.
"""

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from fedistill.distill.averaging import Average
from fedistill.distill.batches import Draws, Examples, steps_of
from fedistill.distill.guide import Guide
from fedistill.distill.material import Material
from fedistill.distill.recipe_stages import SearchedTemperature, StagePlan
from fedistill.distill.recipes import RecipePlan
from fedistill.distill.schedules import cosine_with_warm_up, search_temperature
from fedistill.distill.session import Session, accelerator_of, evaluated
from fedistill.distill.students import Student
from fedistill.distill.terms import Batch, Dials, Learner, Scale, batch_loss
from fedistill.distill.training_state import Position, State, better

_STEPS_TO_FORGET = 5
_RAMP = 0.2
"""Share of a stage in which the say of a mean teacher grows: it knows nothing at first."""


def train_by_recipe(
    student: Student, material: Material, plan: RecipePlan, guide: Guide, session: Session
) -> None:
    """Fit `student.body` in place; it comes back on the CPU, in evaluation mode.

    Under `accelerate launch` every process calls it, and the main one has the student.

    Args:
        student: Untrained.
        material: What it learns from.
        plan: The recipe.
        guide: Its white-box teacher.
        session: Where and how.

    Raises:
        ConfigError: accelerate or the tracker is not installed, or the checkpoints are of another
            config.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(session.seed)
        training = _Training(student, material, plan, guide, session)
        try:
            training.resume()
            while training.position.stage < len(plan.stages):
                training.run_stage()
            training.finish()
        finally:
            training.close()


class _Training:
    """A training on its way: model, optimizer, average and position."""

    def __init__(
        self,
        student: Student,
        material: Material,
        plan: RecipePlan,
        guide: Guide,
        session: Session,
    ) -> None:
        self.student, self.plan, self.guide, self.session = student, plan, guide, session
        matching = guide.matching() if _weight(plan, guide, "features") else None
        # Stages that compare no features leave their adapters without a gradient.
        idle = matching is not None and not all(stage.losses.features for stage in plan.stages)
        self.accelerator = accelerator_of(session, idle_parameters=idle)
        self.plain = copy.deepcopy(student.body)
        self.examples = Examples(
            student,
            material,
            guide,
            views=session.views,
            sure_from=plan.sure_from,
            device=self.accelerator.device,
        )
        self.scale = Scale(self.examples.mean, self.examples.spread).to(self.accelerator.device)
        self.learner = Learner(student.body, guide.student_layers, matching)
        optimizer = torch.optim.AdamW(self.learner.parameters(), weight_decay=plan.weight_decay)
        self.groups = [{**group} for group in optimizer.param_groups]
        self.model, self.optimizer = self.accelerator.prepare(self.learner, optimizer)
        self.batch = _batch_size(plan, len(self.examples), self.accelerator.num_processes)
        self.steps = [self._steps(stage) for stage in plan.stages]
        self.total = sum(map(sum, self.steps))
        decay = min(plan.ema_decay, max(0.0, 1 - _STEPS_TO_FORGET / self.total))
        self.average = Average(self.model, decay=decay)
        self.best: list[Tensor] = []
        mark = session.checkpoints.config_sha256 if session.checkpoints else ""
        self.position = Position(config_sha256=mark)
        self.schedule: LRScheduler | None = None

    def resume(self) -> None:
        """Go on after the newest checkpoint, if there is one."""
        checkpoints = self.session.checkpoints
        found = checkpoints.position() if checkpoints else None
        if checkpoints is None or found is None:
            return
        self.position = found
        stage = self.plan.stages[found.stage]
        # Before the optimizer is loaded, whose rates a schedule sets when it is made.
        self._reset(stage)
        self.schedule = self._schedule(stage, stage.epochs)
        stored = checkpoints.load(self.accelerator)
        self.schedule.load_state_dict(dict(stored.schedule))
        self.average.values, self.average.begun = list(stored.average), stored.begun
        self.best = list(stored.best)

    def run_stage(self) -> None:
        """The rest of the stage that the position is in."""
        stage = self.plan.stages[self.position.stage]
        if self.position.epoch == 0:
            self._begin(stage)
        while self.position.epoch < stage.epochs and not self.position.ended:
            losses = self._epoch(stage, self.position.epoch, self.position.temperature)
            self.position = replace(self.position, epoch=self.position.epoch + 1)
            agreement = self._agreement() if self.plan.validation else math.nan
            if stage.patience and self.position.epoch > rise_of(stage) * stage.epochs:
                if agreement > self.position.best:
                    self.best = [each.clone() for each in self.average.values]
                self.position = better(self.position, agreement, stage.patience)
            self._log(stage, losses, agreement)
            self._save()
        if self.best:
            self.average.write(self.best)
            self.average.values = [each.clone() for each in self.best]
            self.best = []
        self.position = self.position.next_stage()

    def finish(self) -> None:
        """The average as the student, with the target's scale."""
        self.average.write(self.average.values)
        weights = self.accelerator.get_state_dict(self.model)
        body = {
            name.removeprefix("body."): value.cpu()
            for name, value in (weights or {}).items()
            if name.startswith("body.")
        }
        if self.accelerator.is_main_process:
            self.plain.load_state_dict(body)
        self.student.body = self.plain
        self.scale.cpu().fold(self.student.last)
        self.student.eval()

    def close(self) -> None:
        """Free what others may want: hooks, GPU memory, the tracker's file."""
        self.learner.close()
        self.examples.close()
        self.accelerator.end_training()
        self.accelerator.free_memory()

    def _begin(self, stage: StagePlan) -> None:
        """A fresh optimizer and schedule, and the temperature if it is searched."""
        if isinstance(stage.temperature, SearchedTemperature):
            found = search_temperature(stage.temperature.candidates, lambda t: self._try(stage, t))
            self.position = replace(self.position, temperature=found.best)
        self._reset(stage)
        self.schedule = self._schedule(stage, stage.epochs)

    def _try(self, stage: StagePlan, temperature: float) -> float:
        """Agreement after some epochs at a temperature; the weights are then as before."""
        weights, average, begun = self.average.snapshot(), self.average.values, self.average.begun
        self.average.values = [each.clone() for each in average]
        epochs = min(stage.epochs, getattr(stage.temperature, "epochs", 1))
        self._reset(stage)
        self.schedule = self._schedule(stage, epochs)
        for epoch in range(epochs):
            self._epoch(stage, epoch, temperature, tell=False)
        agreement = self._agreement()
        self.average.write(weights)
        self.average.values, self.average.begun = average, begun
        return agreement

    def _reset(self, stage: StagePlan) -> None:
        plain: torch.optim.Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        plain.state.clear()
        for group, first in zip(plain.param_groups, self.groups, strict=True):
            kept = group["params"]
            group.clear()
            group.update({**first, "params": kept, "lr": stage.learning_rate})

    def _schedule(self, stage: StagePlan, epochs: int) -> LRScheduler:
        plain: torch.optim.Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        total = max(2, sum(self.steps[self.position.stage][:epochs]))
        if stage.schedule == "one-cycle":
            return OneCycleLR(plain, max_lr=stage.learning_rate, total_steps=total)
        if stage.schedule == "cosine":
            warm_up = min(total - 1, int(stage.warm_up * total))
            return cosine_with_warm_up(plain, warm_up=warm_up, total=total)
        return ConstantLR(plain, factor=1.0, total_iters=1)

    def _epoch(
        self, stage: StagePlan, epoch: int, temperature: float, *, tell: bool = True
    ) -> Tensor:
        """A pass over the examples in use, its mean loss; temperature 0 takes the stage's."""
        accelerator = self.accelerator
        draws = Draws(
            seed=self.session.seed,
            stage=self.position.stage,
            epoch=epoch,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        # Layers of a network of one's own may draw, such as dropout.
        torch.manual_seed(draws.own().initial_seed())
        views, dials = draws.own(), self._dials(stage, epoch, temperature)
        clip, total = stage.clip_gradient, torch.zeros((), device=accelerator.device)
        self.model.train()
        count = 0
        for count, batch in enumerate(self.examples.batches(stage, draws, self.batch), 1):
            given = self._with_own(batch, dials, views)
            loss = batch_loss(self.model, self.scale, given, dials)
            self.optimizer.zero_grad()
            accelerator.backward(loss)
            if clip:
                accelerator.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            self.average.update()
            total += loss.detach()
            if tell:
                self._tell(epoch, count)
        return total / max(1, count)

    def _with_own(self, batch: Batch, dials: Dials, views: torch.Generator) -> Batch:
        """The batch with what the moving average says of another view of it."""
        if not dials.mix.consistency:
            return batch
        with self.average.applied(), torch.no_grad(), evaluated(self.model):
            answers, _, _ = self.model(self.examples.other_view(batch, views))
        return replace(batch, own=self.scale(answers))

    def _dials(self, stage: StagePlan, epoch: int, temperature: float) -> Dials:
        mix = self.guide.mix(stage.mix)
        if mix.consistency:
            grown = min(1.0, (epoch + 1) / max(1.0, _RAMP * stage.epochs))
            mix = replace(mix, consistency=mix.consistency * grown)
        return Dials(
            mix=mix,
            temperature=temperature or stage.temperatures.at(epoch),
            alpha=stage.alphas.at(epoch),
            smoothing=stage.smoothing,
            images=self.guide.images,
            deepest=self.guide.deepest if self.guide.student_layers else "",
        )

    @torch.no_grad()
    def _agreement(self) -> float:
        """Share of held-out rows on which average and target name the same class."""
        from accelerate.utils import broadcast

        inputs, classes = self.examples.held()
        with self.average.applied(), evaluated(self.model):
            answers, _, _ = self.model(inputs)
        same = (self.scale(answers).argmax(dim=1) == classes).float().mean()
        # One process decides for all, or they would part at a tie.
        return float(broadcast(same.reshape(1)).item())

    def _steps(self, stage: StagePlan) -> list[int]:
        """Steps of each epoch: fewer while a curriculum has not reached all examples."""
        used = (self.examples.in_use(stage, e / stage.epochs) for e in range(stage.epochs))
        return [steps_of(len(each), self.batch) for each in used]

    def _tell(self, epoch: int, step: int) -> None:
        if self.session.progress is None or not self.accelerator.is_main_process:
            return
        before = sum(map(sum, self.steps[: self.position.stage]))
        done = before + sum(self.steps[self.position.stage][:epoch]) + step
        self.session.progress(done, self.total)

    def _log(self, stage: StagePlan, loss: Tensor, agreement: float) -> None:
        if self.session.track == "none":
            return
        before = sum(each.epochs for each in self.plan.stages[: self.position.stage])
        values = {"loss": float(loss), "stage": float(self.position.stage)}
        if not math.isnan(agreement):
            values["agreement"] = agreement
        self.accelerator.log(values, step=before + self.position.epoch)

    def _save(self) -> None:
        checkpoints, schedule = self.session.checkpoints, self.schedule
        if checkpoints is None or schedule is None:
            return
        state = State(
            average=self.average.values,
            begun=self.average.begun,
            best=self.best,
            schedule=schedule.state_dict(),
        )
        checkpoints.save(self.accelerator, self.position, state)


def rise_of(stage: StagePlan) -> float:
    """Share of a stage in which its learning rate grows: agreement that stands still says little.

    A third in one-cycle, as PyTorch has it.
    """
    return {"one-cycle": 0.3, "cosine": stage.warm_up, "constant": 0.0}[stage.schedule]


def _batch_size(plan: RecipePlan, num_examples: int, processes: int) -> int:
    """Examples of a step, the same number for each process."""
    return max(processes, min(plan.batch, num_examples) // processes * processes)


def _weight(plan: RecipePlan, guide: Guide, name: str) -> bool:
    return name in plan.inside and name not in guide.left_out
