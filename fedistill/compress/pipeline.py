"""Compression from the float student to the shipped files: prune, export, quantize, judge."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedistill.compress.candidates import Made, make_candidates
from fedistill.compress.export import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    describe,
    weights_to_bytes,
    write_manifest,
)
from fedistill.compress.gate import Stage, Verdict, judge
from fedistill.compress.pareto import PARETO_FILE, write_pareto
from fedistill.compress.settings import Settings
from fedistill.data import ProxySet
from fedistill.distill.progress import Progress
from fedistill.distill.students import Student
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
        reason: Which file ships and why, and what the others missed, in a sentence or two.
        met: Whether the shipped file meets the bounds that the run config set.
    """

    shipped: Path
    fp32: Path
    stages: tuple[Stage, ...]
    reason: str
    met: bool = True


def compress(
    student: Student,
    proxy: ProxySet,
    target: EnsembleTarget,
    *,
    classes: Sequence[str],
    settings: Settings,
    directory: Path,
    seed: int,
    privacy: Mapping[str, float | str] | None = None,
    progress: Progress | None = None,
) -> Compression:
    """Prune, export, quantize and measure; ship the smallest file that passes the gate.

    What cannot be pruned or quantized is left out, and the reason says why.

    Writes `student.onnx` (the shipped file), `student.fp32.onnx` (the unpruned float student),
    `student.safetensors` (the float weights that the shipped file was made from), of a search
    `pareto.json` (all that was measured) and, last, `manifest.json`, which pins the others. Each
    file appears whole or not at all.

    Args:
        student: The trained float student; left as it was.
        proxy: Its schema goes into the files; its rows fine-tune, calibrate and judge.
        target: The ensemble's answers on the proxy rows.
        classes: Names of the classes, in order.
        settings: What is tried, and what the shipped file must meet.
        directory: Where the files go; made if missing.
        seed: Of fine-tuning.
        privacy: What the manifest says of the guarantee under which the student learned.
        progress: Called with fine-tuning steps done and in all.

    Raises:
        ConfigError: The student has an operator that ONNX has not.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compress-", dir=directory) as scratch:
        work = Path(scratch)
        made = make_candidates(
            student, proxy, settings, work, classes=classes, seed=seed, progress=progress
        )
        verdict = judge(made.candidates, proxy.rows, target.probabilities, settings.bounds)
        reason = " ".join([verdict.reason, *made.remarks])

        shipped, origin = made.candidates[verdict.shipped], made.origins[verdict.shipped]
        files = [work / SHIPPED_FILE, work / FLOAT_FILE, work / WEIGHTS_FILE]
        shutil.copyfile(shipped.path, files[0])
        shutil.copyfile(made.candidates[0].path, files[1])
        files[2].write_bytes(weights_to_bytes(origin))
        if settings.searches:
            files.append(work / PARETO_FILE)
            write_pareto(files[3], verdict, settings)
        write_manifest(
            work / MANIFEST_FILE,
            {
                **describe(origin, schema=proxy.schema, classes=classes),
                "privacy": dict(privacy) if privacy is not None else None,
                "compression": asdict(settings),
                "shipped": _shipped(made, verdict, reason, settings),
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
        met=verdict.met,
    )


def _shipped(made: Made, verdict: Verdict, reason: str, settings: Settings) -> dict[str, Any]:
    """What the manifest says of the shipped file: what was measured on it, and why it ships."""
    stage = asdict(verdict.stages[verdict.shipped])
    del stage["shipped"]
    int8 = stage["precision"] == "int8"
    return {
        **stage,
        "reason": reason,
        "quantization": _quantization(made.reduce_range, settings) if int8 else None,
    }


def _quantization(reduce_range: bool, settings: Settings) -> dict[str, Any]:
    where = {
        "here": f"made on a CPU {'without' if reduce_range else 'with'} VNNI",
        "any": "made for any CPU",
        "vnni": "made for CPUs with VNNI",
    }[settings.target_cpu]
    why = (
        "where 8-bit weights would saturate: 7 bits run anywhere"
        if reduce_range
        else "8-bit weights may saturate on an x86 CPU without it"
    )
    dynamic = settings.quantize == "int8-dynamic"
    return {
        "activations": "uint8, ranged batch by batch" if dynamic else "uint8",
        "weights": "int8, per channel",
        "float_ends": settings.float_ends,
        "trained": settings.quantize == "int8-qat",
        "reduce_range": reduce_range,
        "why": f"{where}{', ' if reduce_range else ': '}{why}",
    }
