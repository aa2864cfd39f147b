"""What a recipe's training costs beside a plain loop, and what a second GPU gains.

    python -m benchmarks.trainer_scaling

A `resnet` student learns images of noise by cross-entropy, in the batches of one recipe whatever
the number of processes. The clock runs from the end of a warm-up to the last step, with the device
idle at both. The plain loop is what one would write by hand: forward, loss, backward, AdamW and
schedule, in the same precision, without a moving average.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fedistill.data import ProxySet, numbers
from fedistill.distill.engine import train_by_recipe
from fedistill.distill.guide import Guide
from fedistill.distill.launch import environment, launcher
from fedistill.distill.material import Material
from fedistill.distill.network_students import make_student
from fedistill.distill.recipes import RecipePlan
from fedistill.distill.session import Session
from fedistill.distill.students import Student
from fedistill.labels import EnsembleTarget

WARM_UP = 0.2
CLASSES = 10
_SECONDS = "seconds "


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is trained.

    Attributes:
        images: How many.
        side: Of each, in pixels of three channels.
        batch: Of all processes together.
        epochs: Passes over the images.
    """

    images: int
    side: int
    batch: int
    epochs: int


class Clock:
    """Seconds from the end of the warm-up to the last step."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Called after each step, as a progress bar is."""
        first = max(1, int(WARM_UP * total))
        if done not in (first, total):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if done == first:
            self._started = now
        self.seconds = now - self._started


def task(size: Size) -> tuple[Student, Material]:
    """An untrained student, and images of noise with soft labels."""
    random = np.random.default_rng(0)
    width = 3 * size.side**2
    rows = random.random((size.images, width), dtype=np.float32)
    schema = numbers(f"x{place}" for place in range(width))
    log_odds = random.normal(size=(size.images, CLASSES - 1))
    torch.manual_seed(0)
    student = make_student("resnet", ProxySet(schema=schema, rows=rows[:1000]), CLASSES)
    target = EnsembleTarget(log_odds=log_odds, std=np.zeros_like(log_odds), num_sites=1)
    material = Material(rows=rows, target=target, held_rows=rows[:0], held_log_odds=log_odds[:0])
    return student, material


def by_recipe(size: Size) -> float:
    """Seconds of our loop."""
    student, material = task(size)
    stage = {"name": "timed", "epochs": size.epochs, "losses": {"cross-entropy": 1.0}}
    plan = RecipePlan.model_validate({"batch": size.batch, "stages": [stage]})
    clock = Clock()
    train_by_recipe(student, material, plan, Guide(), Session(seed=0, progress=clock))
    return clock.seconds


def by_hand(size: Size) -> float:
    """Seconds of a plain loop on one device."""
    student, material = task(size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    body = student.body.to(device).train()
    with torch.no_grad():
        images = student.encoding(torch.from_numpy(material.rows)).to(device)
    targets = torch.from_numpy(material.target.probabilities).float().to(device)
    optimizer = torch.optim.AdamW(body.parameters(), lr=3e-3, weight_decay=0.01)
    steps = len(images) // size.batch
    total = size.epochs * steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=total)
    clock = Clock()
    for epoch in range(size.epochs):
        order = torch.randperm(len(images)).to(device)
        for step in range(steps):
            chosen = order[step * size.batch : (step + 1) * size.batch]
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                logits = body(images[chosen])
            loss = cross_entropy(logits.float(), targets[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            clock(epoch * steps + step + 1, total)
    return clock.seconds


def launched(processes: int, arguments: list[str]) -> float:
    """Seconds of our loop in so many processes.

    Raises:
        SystemExit: They ended without a time; comes with their last words.
    """
    start = launcher(processes) if processes > 1 else [sys.executable]
    done = subprocess.run(  # noqa: S603 - our own program
        [*start, "-m", "benchmarks.trainer_scaling", *arguments, "--worker"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(processes),
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(_SECONDS)]
    if done.returncode or not lines:
        raise SystemExit(done.stderr[-6000:] or f"exit code {done.returncode}")
    return float(lines[-1].removeprefix(_SECONDS))


def main() -> None:
    """Print the table, each row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=16_384)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = Size(images=given.images, side=given.side, batch=given.batch, epochs=given.epochs)
    if given.worker:
        if seconds := by_recipe(size):  # the main process alone has a clock that runs
            print(f"{_SECONDS}{seconds}", flush=True)
        return
    arguments = [
        text
        for name in ("images", "side", "batch", "epochs")
        for text in (f"--{name}", str(getattr(size, name)))
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}; {size.images} images of {size.side} x {size.side}, batch {size.batch}\n")
    print("| loop | processes | seconds | images a second | time beside plain | gain over one |")
    print("|---|---|---|---|---|---|", flush=True)
    plain = min(by_hand(size) for _ in range(given.repeats))
    print(row("plain", 1, size, plain, plain, plain), flush=True)
    one = plain
    for count in given.processes:
        seconds = min(launched(count, arguments) for _ in range(given.repeats))
        one = seconds if count == 1 else one
        print(row("recipe", count, size, seconds, plain, one), flush=True)


def row(loop: str, processes: int, size: Size, seconds: float, plain: float, one: float) -> str:
    """A row of the table: images a second, and both ratios."""
    images = (1 - WARM_UP) * size.epochs * (size.images // size.batch) * size.batch
    return (
        f"| {loop} | {processes} | {seconds:.2f} | {images / seconds:.0f} | "
        f"{seconds / plain:.2f} | {one / seconds:.2f} |"
    )


if __name__ == "__main__":
    main()
