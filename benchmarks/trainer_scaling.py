"""What a recipe's training costs beside a plain loop, and what a second GPU gains.

    python -m benchmarks.trainer_scaling

A `resnet` student learns images of noise by cross-entropy, in the batches of one recipe whatever
the number of processes. The clock runs from the end of a warm-up to the last step, with the device
idle at both. The plain loop is what one would write by hand: forward, loss, backward, AdamW and
schedule, in the same precision, without a moving average. `--spread fsdp` shards the weights too.
"""

import argparse
import json
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


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is trained.

    Attributes:
        images: How many.
        side: Of each, in pixels of three channels.
        batch: Of all processes together.
        epochs: Passes over the images.
        repeats: Measurements, of which the fastest counts.
    """

    images: int
    side: int
    batch: int
    epochs: int
    repeats: int


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


def launched(processes: int, spread: str, arguments: list[str]) -> float:
    """The fastest time of our loop in so many processes."""
    sharded = ["--use_fsdp", "--fsdp_version", "2"] if spread == "fsdp" else []
    start = launcher(processes, *sharded) if processes > 1 else [sys.executable]
    command = [*start, "-m", "benchmarks.trainer_scaling"]
    repeats = arguments[arguments.index("--repeats") + 1]
    found = []
    for _ in range(int(repeats)):
        done = subprocess.run(  # noqa: S603 - our own program
            [*command, *arguments, "--worker"],
            capture_output=True,
            text=True,
            check=False,
            env=environment(processes),
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
        if done.returncode or not lines:
            raise SystemExit(done.stderr[-3000:] or f"exit code {done.returncode}")
        found.append(float(json.loads(lines[-1])["seconds"]))
    return min(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=65_536)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--spread", choices=["ddp", "fsdp"], default="ddp")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = Size(
        images=given.images,
        side=given.side,
        batch=given.batch,
        epochs=given.epochs,
        repeats=given.repeats,
    )
    if given.worker:
        seconds = by_recipe(size)
        if seconds:
            print(json.dumps({"seconds": seconds}), flush=True)
        return
    arguments = [
        text
        for name in ("images", "side", "batch", "epochs", "repeats")
        for text in (f"--{name}", str(getattr(size, name)))
    ]
    plain = min(by_hand(size) for _ in range(size.repeats))
    times = {count: launched(count, given.spread, arguments) for count in given.processes}
    print(table(size, plain, times))


def table(size: Size, plain: float, times: dict[int, float]) -> str:
    """Markdown: seconds, images a second, and both ratios."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    images = (1 - WARM_UP) * size.epochs * (size.images // size.batch) * size.batch
    lines = [
        f"{device}; {size.images} images of {size.side} x {size.side}, batch {size.batch}",
        "",
        "| loop | processes | seconds | images a second | time beside plain | gain over one |",
        "|---|---|---|---|---|---|",
        f"| plain | 1 | {plain:.2f} | {images / plain:.0f} | 1.00 | |",
    ]
    for count, seconds in times.items():
        gain = f"{times[1] / seconds:.2f}" if 1 in times else ""
        lines.append(
            f"| recipe | {count} | {seconds:.2f} | {images / seconds:.0f} | "
            f"{seconds / plain:.2f} | {gain} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
