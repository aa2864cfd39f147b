"""Compression from the float student to the shipped files: prune, export, quantize, judge."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedistill.compress.export import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    describe,
    export_student,
    weights_to_bytes,
    write_manifest,
)
from fedistill.compress.gate import Candidate, Stage, judge
from fedistill.compress.prune import prune_student
from fedistill.compress.prune_network import prune_network, why_not_pruned
from fedistill.compress.quantize import needs_reduced_range, quantize_file
from fedistill.data import ProxySet
from fedistill.distill.network_students import NetworkStudent
from fedistill.distill.students import Student, TabularStudent
from fedistill.distill.trainer import Progress
from fedistill.labels import EnsembleTarget

SHIPPED_FILE = "student.onnx"
FLOAT_FILE = "student.fp32.onnx"


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What compression left behind.

    Attributes:
        shipped: The ONNX file that passed the gate.
        fp32: The unpruned float student as ONNX.
        stages: What was measured on each candidate, float first.
        reason: Which file ships and why, and what the others missed, in a sentence.
    """

    shipped: Path
    fp32: Path
    stages: tuple[Stage, ...]
    reason: str


def compress(
    student: Student,
    proxy: ProxySet,
    target: EnsembleTarget,
    *,
    classes: Sequence[str],
    prune_ratio: float,
    int8: bool,
    directory: Path,
    seed: int,
    progress: Progress | None = None,
) -> Compression:
    """Prune, export, quantize and measure; ship the smallest file that passes the gate.

    A student that cannot be pruned is only quantized, and the reason says why.

    Writes `student.onnx` (the shipped file), `student.fp32.onnx` (the unpruned float student),
    `student.safetensors` (the float weights that the shipped file was made from) and, last,
    `manifest.json`, which pins the others. Each file appears whole or not at all.

    Args:
        student: The trained float student; left as it was.
        proxy: Its schema goes into the files; its rows fine-tune, calibrate and judge.
        target: The ensemble's answers on the proxy rows.
        classes: Names of the classes, in order.
        prune_ratio: Share of the hidden channels to remove, in [0, 0.9]; 0 skips pruning.
        int8: Whether to try int8 files too.
        directory: Where the files go; made if missing.
        seed: Of fine-tuning.
        progress: Called with fine-tuning steps done and in all.
    """
    students = {"float": student}
    unpruned = why_not_pruned(student) if prune_ratio > 0 else None
    if prune_ratio > 0 and not unpruned:
        students["pruned"] = _pruned(student, proxy, prune_ratio, seed, progress)
    reduce_range = needs_reduced_range()
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compress-", dir=directory) as scratch:
        work = Path(scratch)
        candidates = []
        for stage, version in students.items():
            path = work / f"{stage}.onnx"
            export_student(version, path, schema=proxy.schema, classes=classes)
            candidates.append(_candidate(stage, "float32", path, version))
        if int8:
            for stage, version in students.items():
                path = work / f"{stage}.int8.onnx"
                quantize_file(work / f"{stage}.onnx", path, proxy.rows, reduce_range=reduce_range)
                name = "quantized" if stage == "float" else f"{stage}+quantized"
                candidates.append(_candidate(name, "int8", path, version))

        verdict = judge(candidates, proxy.rows, target.probabilities)
        reason = f"{verdict.reason} {unpruned}" if unpruned else verdict.reason

        shipped = candidates[verdict.shipped]
        files = [work / SHIPPED_FILE, work / FLOAT_FILE, work / WEIGHTS_FILE]
        shutil.copyfile(shipped.path, files[0])
        shutil.copyfile(candidates[0].path, files[1])
        origin = students["pruned" if "pruned" in shipped.stage else "float"]
        files[2].write_bytes(weights_to_bytes(origin))
        write_manifest(
            work / MANIFEST_FILE,
            {
                **describe(origin, schema=proxy.schema, classes=classes),
                "shipped": {
                    "stage": shipped.stage,
                    "precision": shipped.precision,
                    "reason": reason,
                    "quantization": _quantization(reduce_range)
                    if shipped.precision == "int8"
                    else None,
                },
            },
            files,
        )
        for file in [*files, work / MANIFEST_FILE]:
            os.replace(file, directory / file.name)
    return Compression(
        shipped=directory / SHIPPED_FILE,
        fp32=directory / FLOAT_FILE,
        stages=verdict.stages,
        reason=reason,
    )


def _pruned(
    student: Student, proxy: ProxySet, prune_ratio: float, seed: int, progress: Progress | None
) -> Student:
    if isinstance(student, TabularStudent):
        return prune_student(
            student, proxy.rows, prune_ratio=prune_ratio, seed=seed, progress=progress
        )
    if isinstance(student, NetworkStudent):
        return prune_network(
            student, proxy.rows, prune_ratio=prune_ratio, seed=seed, progress=progress
        )
    raise TypeError(f"{type(student).__name__} is no student that can be pruned")


def _candidate(stage: str, precision: str, path: Path, student: Student) -> Candidate:
    return Candidate(stage=stage, precision=precision, path=path, parameters=student.num_parameters)


def _quantization(reduce_range: bool) -> dict[str, Any]:
    why = (
        "made on a CPU without VNNI, where 8-bit weights would saturate: 7 bits run anywhere"
        if reduce_range
        else "made on a CPU with VNNI: 8-bit weights may saturate on an x86 CPU without it"
    )
    return {
        "activations": "uint8",
        "weights": "int8, per channel",
        "reduce_range": reduce_range,
        "why": why,
    }
