"""What compression costs and brings: FP32 and compressed files of one run, side by side.

    python -m benchmarks.compression --data-dir DIR

DIR holds `mnist.npz` (x_train, y_train, x_test, y_test) and `uci_credit.npz` (X, y, features). No
teacher and no noise take part: a residual network learns MNIST's training images, and an MLP of
about 160,000 weights a table's labelled rows, so that the figures are those of compression alone.

The compression is the product's: `compress` searches over shares of the channels, each with static
int8, and ships the smallest file that answers like the unpruned student on public rows. Nothing is
chosen by a test label. Public rows are images that nobody labels, 9,000 of them, and a fifth of the
table; the test images, and 15% of the table, only measure. FASTER compares medians of calls with
256 rows on one thread.

The second table is a control: what quantization-aware training brings over rounding alone, for the
shipped share of channels. "Longer in float" has as many more steps of the same fine-tuning, without
the rounding. Bits are those of the weights: CPUs without VNNI bear 7.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from fedistill.compress import load_student, predict_file
from fedistill.compress.export import INPUT, export_student
from fedistill.compress.finetune import lessons_of
from fedistill.compress.gate import WARM_UP_CALLS, session_of
from fedistill.compress.pipeline import compress
from fedistill.compress.qat import LEARNING_RATE, STEPS, train_quantized
from fedistill.compress.quantize import quantize_file
from fedistill.compress.settings import GRID, Settings
from fedistill.data import ProxySet, numbers
from fedistill.distill.encoding import TabularEncoding
from fedistill.distill.image_trainer import ImageRecipe, distil_images
from fedistill.distill.network_students import make_student
from fedistill.distill.students import (
    Student,
    TabularStudent,
    predict_log_odds,
    predict_probabilities,
)
from fedistill.distill.trainer import Recipe, make_examples, optimise
from fedistill.labels import EnsembleTarget

TASKS = ("mnist", "table")
HIDDEN = (256, 256)
STEPS_TRIED = (100, 200, 400, 800)
SURE = 2.0
"""Log-odds that stand for a label."""
ROUNDS = 15
CALLS = 7

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A trained student, and what compresses and measures it.

    Attributes:
        student: Float, unpruned.
        proxy: Public rows without labels.
        test: Rows and labels that only measure.
        metric: The name of `score`.
        score: Labels and probabilities to the metric, in percent.
    """

    name: str
    student: Student
    proxy: ProxySet
    test: tuple[Rows, Labels]
    metric: str
    score: Callable[[Labels, Shares], float]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one file costs and scores; agreement is with the unpruned student on public rows."""

    task: str
    file: str
    parameters: int
    bytes: int
    milliseconds: float
    agreement: float
    metric: float


def digits(folder: Path, *, device: str, epochs: int, limit: int) -> Task:
    """A residual network that learned all training images but the public ones."""
    with np.load(folder / "mnist.npz") as archive:
        part = {name: archive[name] for name in archive.files}
    rows = {name: part[name].reshape(len(part[name]), -1).astype(np.float32) for name in part}
    order = np.random.default_rng(0).permutation(len(rows["x_train"]))
    public, learned = order[:9000][:limit], order[9000:][:limit]
    proxy = ProxySet(
        schema=numbers(f"pixel_{number}" for number in range(rows["x_train"].shape[1])),
        rows=rows["x_train"][public],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = make_student("resnet", proxy, num_classes=10)
    with torch.no_grad():
        images = student.encoding(torch.from_numpy(rows["x_train"][learned]))
    labels = torch.from_numpy(part["y_train"][learned].astype(np.int64))
    targets = torch.nn.functional.one_hot(labels, 10).double()
    recipe = ImageRecipe(epochs=epochs, self_training=0.0)
    distil_images(student.body, images, targets, seed=0, recipe=recipe, device=device)
    return Task(
        name="mnist",
        student=student.eval(),
        proxy=proxy,
        test=(rows["x_test"], part["y_test"].astype(np.int64)),
        metric="accuracy %",
        score=lambda labels, shares: 100 * float(np.mean(shares.argmax(axis=1) == labels)),
    )


def table(file: Path, *, limit: int) -> Task:
    """An MLP that learned labelled rows, for as many steps as other labelled rows liked best."""
    with np.load(file) as archive:
        rows, labels = archive["X"].astype(np.float32), archive["y"].astype(np.int64)
        names = [str(name) for name in archive["features"]]
    order = np.random.default_rng(0).permutation(len(rows))[:limit]
    learned, checked, public, test = np.split(
        order, [int(share * len(order)) for share in (0.55, 0.65, 0.85)]
    )
    proxy = ProxySet(schema=numbers(names), rows=rows[public])
    log_odds = np.where(labels[learned] == 1, SURE, -SURE)[:, None]
    examples = make_examples(rows[learned], log_odds, np.ones_like(log_odds))
    tried = []
    for steps in STEPS_TRIED:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            student = TabularStudent(TabularEncoding.fit(proxy), HIDDEN, num_classes=2)
        optimise(student, examples, Recipe(learning_rate=1e-3), num_steps=steps, seed=0)
        shares = predict_probabilities(student.eval(), rows[checked])
        tried.append((roc_auc_score(labels[checked], shares[:, 1]), student))
    return Task(
        name=file.stem,
        student=max(tried, key=lambda each: each[0])[1],
        proxy=proxy,
        test=(rows[test], labels[test]),
        metric="AUC %",
        score=lambda labels, shares: 100 * float(roc_auc_score(labels, shares[:, 1])),
    )


def compressed(task: Task, ratios: Sequence[float], folder: Path) -> list[Figures]:
    """FP32 and shipped file of a search over these shares of the channels."""
    log_odds = predict_log_odds(task.student, task.proxy.rows)
    target = EnsembleTarget(log_odds=log_odds, std=np.zeros_like(log_odds), num_sites=1)
    done = compress(
        task.student,
        task.proxy,
        target,
        classes=[str(number) for number in range(task.student.num_classes)],
        settings=Settings(search=True, grid=tuple(ratios)),
        directory=folder,
        seed=0,
    )
    shipped = next(stage for stage in done.stages if stage.shipped)
    return measured(
        task,
        {"FP32": done.fp32, shipped.stage: done.shipped},
        [task.student.num_parameters, shipped.parameters],
    )


def control(task: Task, folder: Path, *, steps: int) -> list[Figures]:
    """Rounding alone, after longer training in float, and after training behind the rounding."""
    pruned = load_student(folder)
    longer = load_student(folder)
    learn = lessons_of(task.student, task.proxy.rows, seed=0)
    learn(longer, steps=steps, seed=0, learning_rate=LEARNING_RATE)
    files = {}
    for bits in (8, 7):
        reduce_range = bits == 7
        trained = train_quantized(
            pruned,
            task.proxy.rows,
            teacher=task.student,
            reduce_range=reduce_range,
            float_ends="none",
            seed=0,
            steps=steps,
        )
        ways = {"rounded": pruned, "longer in float, rounded": longer, "trained rounded": trained}
        for way, student in ways.items():
            source, path = folder / "float.onnx", folder / f"{way}, {bits} bits.onnx"
            classes = [str(number) for number in range(student.num_classes)]
            export_student(student, source, schema=task.proxy.schema, classes=classes)
            quantize_file(
                source, path, task.proxy.rows, reduce_range=reduce_range, float_ends="none"
            )
            files[path.stem] = path
    return measured(task, files, [pruned.num_parameters] * len(files))


def measured(task: Task, files: dict[str, Path], parameters: Sequence[int]) -> list[Figures]:
    """Size, speed, agreement and the test metric of each file."""
    says = predict_probabilities(task.student, task.proxy.rows).argmax(axis=1)
    rows, labels = task.test
    speeds = latencies(list(files.values()), rows[:256])
    return [
        Figures(
            task=task.name,
            file=name,
            parameters=count,
            bytes=path.stat().st_size,
            milliseconds=speed,
            agreement=float(np.mean(predict_file(path, task.proxy.rows).argmax(axis=1) == says)),
            metric=task.score(labels, predict_file(path, rows)),
        )
        for (name, path), count, speed in zip(files.items(), parameters, speeds, strict=True)
    ]


def latencies(paths: Sequence[Path], rows: Rows) -> list[float]:
    """Median milliseconds of a call; the files take turns, so that a busy machine slows all."""
    sessions = [session_of(path) for path in paths]
    taken: list[list[float]] = [[] for _ in sessions]
    for turn in range(ROUNDS):
        for session, seconds in zip(sessions, taken, strict=True):
            for _ in range(WARM_UP_CALLS if turn == 0 else 1):
                session.run(None, {INPUT: rows})
            for _ in range(CALLS):
                start = time.perf_counter()
                session.run(None, {INPUT: rows})
                seconds.append(time.perf_counter() - start)
    return [1000 * statistics.median(seconds) for seconds in taken]


def shown(all_figures: Sequence[Figures], metric: str) -> Table:
    """Figures beside those of the first file."""
    columns = ("weights", "bytes", "smaller", "ms", "faster", "agrees", metric, "lost")
    shown_table = Table("task", "file", *columns, box=None)
    first = all_figures[0]
    for each in all_figures:
        shown_table.add_row(
            each.task,
            each.file,
            f"{each.parameters:,}",
            f"{each.bytes:,}",
            f"{first.bytes / each.bytes:.1f}x",
            f"{each.milliseconds:.3f}",
            f"{first.milliseconds / each.milliseconds:.1f}x",
            f"{each.agreement:.4f}",
            f"{each.metric:.2f}",
            f"{first.metric - each.metric:+z.2f}",
        )
    return shown_table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the npz files")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--table", default="uci_credit", help="name of the table's file")
    parser.add_argument("--ratios", nargs="+", type=float, default=GRID, help="that are searched")
    parser.add_argument("--epochs", type=int, default=12, help="of the residual network")
    parser.add_argument("--control-steps", type=int, default=STEPS, help="of the control; 0: none")
    parser.add_argument("--limit", type=int, default=10**9, help="rows of each part, for a try")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU, if there is one")
    parser.add_argument("--results", type=Path, help="JSON file of all figures")
    arguments = parser.parse_args()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    console, kept = Console(highlight=False, width=150), []
    for name in arguments.tasks:
        folder, limit = arguments.data_dir, arguments.limit
        task = (
            digits(folder, device=device, epochs=arguments.epochs, limit=limit)
            if name == "mnist"
            else table(folder / f"{arguments.table}.npz", limit=limit)
        )
        with tempfile.TemporaryDirectory() as scratch:
            figures = compressed(task, sorted(arguments.ratios), Path(scratch))
            console.print(shown(figures, task.metric))
            if arguments.control_steps:
                controls = control(task, Path(scratch), steps=arguments.control_steps)
                console.print(shown([figures[0], *controls], task.metric))
                figures += controls
        kept += [asdict(each) for each in figures]
        if arguments.results:
            arguments.results.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
