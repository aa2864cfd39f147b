"""The files that could ship: versions of the student, each in float and in lower precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedistill.compress import qat
from fedistill.compress.export import export_student
from fedistill.compress.gate import Candidate
from fedistill.compress.half import halve_file
from fedistill.compress.prune import prune_student
from fedistill.compress.prune_network import prune_network, why_not_pruned
from fedistill.compress.quantize import (
    needs_reduced_range,
    quantize_dynamically,
    quantize_file,
)
from fedistill.compress.settings import Settings
from fedistill.compress.sparse import sparsify
from fedistill.data import ProxySet
from fedistill.distill.network_students import NetworkStudent
from fedistill.distill.progress import Progress
from fedistill.distill.students import Student, TabularStudent

PRECISIONS = {
    "int8": ("quantized", "int8"),
    "int8-dynamic": ("dynamic", "int8"),
    "int8-qat": ("qat", "int8"),
    "fp16": ("half", "float16"),
}
"""What a stage is called, and the precision of its weights, by the run-config key `quantize`."""

_AS_A_WHOLE = 1000


@dataclass(frozen=True, kw_only=True)
class Made:
    """Candidates, what each was made from, and what could not be made.

    Attributes:
        candidates: The float student's file first.
        origins: The student whose float weights are in each.
        reduce_range: Whether int8 weights have 7 bits.
        remarks: Sentences on what was not made, and why.
    """

    candidates: tuple[Candidate, ...]
    origins: tuple[Student, ...]
    reduce_range: bool
    remarks: tuple[str, ...]


def make_candidates(
    student: Student,
    proxy: ProxySet,
    settings: Settings,
    folder: Path,
    *,
    classes: Sequence[str],
    seed: int,
    progress: Progress | None = None,
) -> Made:
    """Write all files that could ship into `folder`.

    What cannot be made is left out and named: the float student's file is always there.

    Raises:
        ConfigError: The float student has an operator that ONNX has not.
    """
    candidates: list[Candidate] = []
    origins: list[Student] = []
    remarks: list[str] = []

    def add(stage: str, precision: str, path: Path, origin: Student) -> None:
        parameters = origin.num_parameters
        candidates.append(
            Candidate(stage=stage, precision=precision, path=path, parameters=parameters)
        )
        origins.append(origin)

    versions = _versions(student, proxy, settings, seed, progress, remarks)
    for stage, version in versions.items():
        path = folder / f"{stage}.onnx"
        export_student(version, path, schema=proxy.schema, classes=classes)
        add(stage, "float32", path, version)

    reduce_range = (
        needs_reduced_range() if settings.target_cpu == "here" else (settings.target_cpu == "any")
    )
    if settings.quantize.startswith("int8") and not reduce_range and needs_reduced_range():
        remarks.append(
            "No int8 file was made: target-cpu='vnni' needs 8-bit weights, and this machine, whose "
            "CPU shows no VNNI, would measure other answers."
        )
    elif settings.quantize != "none":
        word, precision = PRECISIONS[settings.quantize]
        for stage, version in versions.items():
            name = word if stage == "float" else f"{stage}+{word}"
            path = folder / f"{stage}.onnx"
            try:
                origin = _lowered(
                    version,
                    path,
                    folder / f"{name}.onnx",
                    proxy,
                    settings,
                    teacher=student,
                    classes=classes,
                    reduce_range=reduce_range,
                    seed=seed,
                )
            # The libraries that lower precision know not every operator of every network; the float
            # file ships where they fail, and the reason says so.
            except Exception as error:
                remarks.append(f"No {name} file was made ({type(error).__name__}: {error}).")
                continue
            add(name, precision, folder / f"{name}.onnx", origin)
    return Made(
        candidates=tuple(candidates),
        origins=tuple(origins),
        reduce_range=reduce_range,
        remarks=tuple(remarks),
    )


def _versions(
    student: Student,
    proxy: ProxySet,
    settings: Settings,
    seed: int,
    progress: Progress | None,
    remarks: list[str],
) -> dict[str, Student]:
    """The student by stage, "float" first, then with ever fewer channels or weights."""
    versions = {"float": student}
    ratios = settings.ratios
    sparse = settings.prune_by == "unstructured"
    why_not = why_not_pruned(student) if ratios and not sparse else None
    if why_not:
        remarks.append(why_not)
        return versions
    for number, ratio in enumerate(ratios):
        word = "sparse" if sparse else "pruned"
        stage = f"{word} {ratio:.0%}" if settings.searches else word
        part = _part(progress, number, len(ratios))
        versions[stage] = _pruned(student, proxy, ratio, settings.prune_by, seed, part)
    return versions


def _pruned(
    student: Student,
    proxy: ProxySet,
    ratio: float,
    prune_by: str,
    seed: int,
    progress: Progress | None,
) -> Student:
    if prune_by == "unstructured":
        return sparsify(student, proxy.rows, prune_ratio=ratio, seed=seed, progress=progress)
    if isinstance(student, TabularStudent):
        return prune_student(
            student, proxy.rows, prune_ratio=ratio, prune_by=prune_by, seed=seed, progress=progress
        )
    if isinstance(student, NetworkStudent):
        return prune_network(
            student, proxy.rows, prune_ratio=ratio, prune_by=prune_by, seed=seed, progress=progress
        )
    raise TypeError(f"{type(student).__name__} is no student that can be pruned")


def _lowered(
    version: Student,
    source: Path,
    destination: Path,
    proxy: ProxySet,
    settings: Settings,
    *,
    teacher: Student,
    classes: Sequence[str],
    reduce_range: bool,
    seed: int,
) -> Student:
    """Write the version in lower precision; the student whose float weights are in the file."""
    ends = settings.float_ends
    if settings.quantize == "fp16":
        halve_file(source, destination)
    elif settings.quantize == "int8-dynamic":
        quantize_dynamically(source, destination, reduce_range=reduce_range, float_ends=ends)
    else:
        if settings.quantize == "int8-qat":
            version = qat.train_quantized(
                version,
                proxy.rows,
                teacher=teacher,
                reduce_range=reduce_range,
                float_ends=ends,
                seed=seed,
            )
            source = destination.with_suffix(".float.onnx")
            export_student(version, source, schema=proxy.schema, classes=classes)
        quantize_file(source, destination, proxy.rows, reduce_range=reduce_range, float_ends=ends)
    return version


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of `count` parts as that of the whole."""
    if progress is None or count == 1:
        return progress
    return lambda done, total: progress(
        number * _AS_A_WHOLE + _AS_A_WHOLE * done // total, count * _AS_A_WHOLE
    )
