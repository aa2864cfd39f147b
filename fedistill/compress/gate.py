"""The quality gate: candidates are measured on their own files; the smallest good one ships."""

import statistics
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from sklearn.metrics import roc_auc_score

from fedistill.compress.export import INPUT
from fedistill.compress.settings import Bounds
from fedistill.distill.encoding import Rows

LEAST_AGREEMENT = 0.99
MOST_METRIC_LOSS = 0.002
ROWS_AT_ONCE = 4096
NO_BOUNDS = Bounds()
TIMED_CALLS = {1: 300, 256: 60}
WARM_UP_CALLS = 10
SAME_SIZE = 1.01
"""Files that differ by less than this factor are of one size: their compressed size decides."""
MOST_REJECTED = 4
"""So many rejected files are named with their reasons."""

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that could ship.

    Attributes:
        stage: "float", or what was done to it, as in "pruned+quantized".
        precision: "float32", "float16" or "int8".
        path: The ONNX file.
        parameters: Trained numbers in it.
    """

    stage: str
    precision: str
    path: Path
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What was measured on one candidate's file.

    Attributes:
        stage: "float", or what was done to it, as in "pruned+quantized".
        precision: "float32", "float16" or "int8".
        shipped: Whether this file became `student.onnx`.
        parameters: Trained numbers in it.
        bytes: Size of the file.
        bytes_deflated: The same as it travels compressed, by zlib.
        metric: Expected AUC under the target on proxy rows; see `expected_auc`.
        agreement: Share of proxy rows given the same class as by the float file.
        latency_ms_batch_1: Median milliseconds of a call with 1 row, one thread.
        latency_ms_batch_256: The same with 256 rows.
    """

    stage: str
    precision: str
    shipped: bool
    parameters: int
    bytes: int
    bytes_deflated: int
    metric: float
    agreement: float
    latency_ms_batch_1: float
    latency_ms_batch_256: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The gate's choice.

    Attributes:
        stages: In the candidates' order.
        misses: Of each, what it misses of the gate, in words; nothing of the float file.
        shipped: Which one ships.
        met: Whether it meets the bounds.
        reason: Why it ships.
    """

    stages: tuple[Stage, ...]
    misses: tuple[tuple[str, ...], ...]
    shipped: int
    met: bool
    reason: str


def judge(
    candidates: Sequence[Candidate],
    proxy_rows: Rows,
    target_probabilities: Probabilities,
    bounds: Bounds = NO_BOUNDS,
) -> Verdict:
    """Measure all candidates and choose among those that pass.

    A candidate passes if it agrees with the float file on at least 99% of the proxy rows, loses at
    most 0.002 of its expected AUC, and is smaller, of files whose weights are sparse compressed.
    The smallest that passes ships. With bounds it is the one of those that meet them which agrees
    most; where none does, the float file if it meets them, else what comes nearest to them. Without
    bounds latency decides nothing: which of two files is faster depends on the user's machine.

    Args:
        candidates: The float student's file first.
        proxy_rows: (num_proxy, num_columns) float32, NaN for missing.
        target_probabilities: (num_proxy, num_classes), of the ensemble.
        bounds: Of size and latency on this machine.
    """
    reference = predict(session_of(candidates[0].path), proxy_rows)
    measured = [
        _measure(candidate, reference, proxy_rows, target_probabilities) for candidate in candidates
    ]
    misses = [(), *(tuple(_misses(stage, measured[0])) for stage in measured[1:])]
    shipped, met = choose(measured, misses, bounds)
    return Verdict(
        stages=tuple(
            replace(stage, shipped=index == shipped) for index, stage in enumerate(measured)
        ),
        misses=tuple(misses),
        shipped=shipped,
        met=met,
        reason=reason_of(measured, shipped, misses, bounds, met=met),
    )


def choose(
    stages: Sequence[Stage], misses: Sequence[Sequence[str]], bounds: Bounds
) -> tuple[int, bool]:
    """Which stage ships, and whether it meets the bounds; the float student's comes first."""
    good = [index for index, missed in enumerate(misses) if not missed]
    meeting = [index for index in good if _excess(stages[index], bounds) <= 1]
    if not meeting:
        return min(good, key=lambda index: _excess(stages[index], bounds)), False
    compressed = [index for index in meeting if index > 0]
    if not compressed:
        return 0, True
    if bounds:
        return max(
            compressed, key=lambda index: (stages[index].agreement, -stages[index].bytes)
        ), True
    return _smallest(stages, compressed), True


def expected_auc(scores: Probabilities, target: Probabilities) -> float:
    """AUC that the scores would have if each row's label were drawn from the target.

    Every row counts as class k with weight target[:, k], so no label is needed; one-vs-rest and
    averaged over classes beyond two. Classes that the target never or always gives are left out,
    and scores that are not finite are worth 0.

    Args:
        scores: (num_rows, num_classes), the candidate's probabilities.
        target: (num_rows, num_classes), the ensemble's probabilities.
    """
    if not np.isfinite(scores).all():
        return 0.0
    classes = [1] if target.shape[1] == 2 else range(target.shape[1])
    labels = np.repeat([1, 0], len(target))
    areas = []
    for label in classes:
        weights = np.concatenate([target[:, label], 1 - target[:, label]])
        if 0 < target[:, label].sum() < len(target):
            areas.append(roc_auc_score(labels, np.tile(scores[:, label], 2), sample_weight=weights))
    return float(np.mean(areas)) if areas else 0.5


def predict_file(path: Path, rows: Rows) -> Probabilities:
    """Class probabilities (n, num_classes) that an ONNX file gives for raw rows."""
    return predict(session_of(path), rows)


def predict(session: onnxruntime.InferenceSession, rows: Rows) -> Probabilities:
    """Probabilities of an exported student, shape (num_rows, num_classes)."""
    parts = [
        session.run(None, {INPUT: rows[start : start + ROWS_AT_ONCE]})[0]
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.float64)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """The file, ready to run on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _measure(
    candidate: Candidate, reference: Probabilities, proxy_rows: Rows, target: Probabilities
) -> Stage:
    session = session_of(candidate.path)
    answers = predict(session, proxy_rows)
    return Stage(
        stage=candidate.stage,
        precision=candidate.precision,
        shipped=False,
        parameters=candidate.parameters,
        bytes=candidate.path.stat().st_size,
        bytes_deflated=len(zlib.compress(candidate.path.read_bytes(), level=9)),
        metric=expected_auc(answers, target),
        agreement=float(np.mean(answers.argmax(axis=1) == reference.argmax(axis=1))),
        latency_ms_batch_1=_latency_ms(session, proxy_rows, batch=1),
        latency_ms_batch_256=_latency_ms(session, proxy_rows, batch=256),
    )


def _latency_ms(session: onnxruntime.InferenceSession, rows: Rows, *, batch: int) -> float:
    feed = {INPUT: np.resize(rows[:batch], (batch, rows.shape[1]))}
    for _ in range(WARM_UP_CALLS):
        session.run(None, feed)
    seconds = []
    for _ in range(TIMED_CALLS[batch]):
        start = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1000


def _misses(stage: Stage, reference: Stage) -> list[str]:
    """The bounds that a stage missed, in words."""
    missed = []
    if not stage.agreement >= LEAST_AGREEMENT:
        missed.append(f"agreement {stage.agreement:.4f} is below {LEAST_AGREEMENT}")
    if not reference.metric - stage.metric <= MOST_METRIC_LOSS:
        loss = reference.metric - stage.metric
        missed.append(f"AUC loss {loss:.4f} is above {MOST_METRIC_LOSS}")
    sparse = "sparse" in stage.stage and stage.bytes_deflated < reference.bytes_deflated
    if not stage.bytes < reference.bytes and not sparse:
        missed.append(f"{stage.bytes:,} bytes are not fewer than {reference.bytes:,}")
    return missed


def _excess(stage: Stage, bounds: Bounds) -> float:
    """The larger of latency and size as a share of its bound; 0 without bounds."""
    return max(
        stage.latency_ms_batch_1 / bounds.max_latency_ms if bounds.max_latency_ms else 0.0,
        stage.bytes / bounds.max_bytes if bounds.max_bytes else 0.0,
    )


def _smallest(stages: Sequence[Stage], among: Sequence[int]) -> int:
    least = min(stages[index].bytes for index in among)
    alike = [index for index in among if stages[index].bytes <= SAME_SIZE * least]
    return min(alike, key=lambda index: stages[index].bytes_deflated)


def reason_of(
    stages: Sequence[Stage],
    shipped: int,
    misses: Sequence[Sequence[str]],
    bounds: Bounds,
    *,
    met: bool,
) -> str:
    """Which file ships and why, and what the others missed, in a sentence."""
    rejected = [
        f"the {stage.stage} file was rejected ({' and '.join(missed)})"
        for stage, missed in zip(stages, misses, strict=True)
        if missed
    ]
    if len(rejected) > MOST_REJECTED:
        rejected = [f"{len(rejected)} files were rejected, and pareto.json says why"]
    chosen = stages[shipped]
    passes = f"passes the gate{_meets(bounds)}"
    if not met:
        head = (
            f"No file{_meets(bounds).replace(' and meets', ' that passes the gate meets')}: "
            f"shipped the {chosen.stage} file, which comes nearest ({chosen.bytes:,} bytes, "
            f"{chosen.latency_ms_batch_1:.3g} ms for one row, agreement {chosen.agreement:.4f})"
        )
    elif shipped:
        share = stages[0].bytes / chosen.bytes
        head = (
            f"Shipped the {chosen.stage} file, {share:.1f} times smaller than the float student, "
            f"as the {'most faithful' if bounds else 'smallest'} that {passes} "
            f"(agreement {chosen.agreement:.4f}, "
            f"AUC change {chosen.metric - stages[0].metric:+z.4f})"
        )
    elif len(stages) > 1:
        head = f"Shipped the float student because no compressed file {passes}"
    else:
        head = "Shipped the float student because no compressed file was made"
    return "; ".join([head, *rejected]) + "."


def _meets(bounds: Bounds) -> str:
    """The bounds in words, nothing where there are none."""
    words = []
    if bounds.max_latency_ms:
        words.append(f"max-latency-ms={bounds.max_latency_ms:g}")
    if bounds.max_bytes:
        words.append(f"max-bytes={bounds.max_bytes:,}")
    return f" and meets {' and '.join(words)}" if words else ""
