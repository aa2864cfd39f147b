"""The phases of the workflow, each with its checkpoint."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dp_accounting import NoOpDpEvent
from safetensors.torch import load_file

from fedistill.codec import encode_release
from fedistill.compress import Compression, Stage, compress, weights_to_bytes
from fedistill.distill.students import Student
from fedistill.distill.target import Ensemble
from fedistill.distill.training import distil, fresh_student
from fedistill.distill.training_state import Checkpoints
from fedistill.errors import DataError
from fedistill.evaluate.files import write_atomically
from fedistill.federation import messages
from fedistill.federation.asking import Roster, ask_sites, find_sites, require_sites
from fedistill.federation.countersigning import take_receipt, without_rewound
from fedistill.federation.learning import compression_of, learning_of
from fedistill.federation.messages import Answer, reason
from fedistill.labels import LabelRelease
from fedistill.mechanisms import mechanism_named

if TYPE_CHECKING:
    from fedistill.federation.workflow import Run

Releases = dict[str, LabelRelease]
Reader = Callable[[str, Answer], LabelRelease]


def hello(this: "Run") -> Roster:
    """Find the node of every site."""
    sites = this.public.site_names
    roster = find_sites(
        this.grid,
        sites,
        timeout=this.config.phase_timeout,
        wire=this.wire,
        on_progress=partial(this.progress.step, "hello"),
    )
    missing = [site for site in sites if site not in roster.nodes]
    roster, rewound = without_rewound(this, roster)
    failures = dict.fromkeys(missing, reason("no-answer")) | rewound
    _leave_out(this, "hello", failures, len(sites))
    return roster


def answered(this: "Run") -> tuple[str, ...] | None:
    """The sites whose labels a finished phase left here, None where it is not finished."""
    path = this.folder.checkpoint("labels.json")
    return tuple(json.loads(path.read_text())["sites"]) if path.is_file() else None


def labels(this: "Run", roster: Roster) -> Releases:
    """Every site's noised labels on the proxy set; sites that fail are left out."""
    read = _label_reader(this)
    if (stored := _load(this, "labels", read)) is not None:
        return stored
    answers = ask_sites(
        this.grid,
        roster,
        messages.LABELS,
        this.questions,
        timeout=this.config.phase_timeout,
        up=this.wire.up,
        down=this.wire.down,
        on_progress=partial(this.progress.step, "labels"),
    )
    releases, failures = _read_all(answers, read)
    for site in releases:
        answer, identity = answers[site], roster.identities.get(site, b"")
        question = this.questions[site]
        take_receipt(this, site, question, identity, answer.release, answer.statement)
    _leave_out(this, "labels", failures, len(this.public.site_names))
    _save(this, "labels", releases)
    return releases


def student(this: "Run", ensemble: Ensemble) -> Student:
    """Distil the ensemble into a student."""
    done = this.folder.checkpoint("student.safetensors")
    proxy, learning = this.public.proxy, learning_of(this.config)
    if done.is_file():
        stored = fresh_student(proxy, len(this.public.classes), learning)
        stored.load_state_dict(load_file(done))
        return stored.eval()
    trained = distil(
        proxy,
        ensemble,
        learning,
        seed=this.config.seed,
        progress=partial(this.progress.step, "student"),
        checkpoints=Checkpoints(this.folder.checkpoint("training"), this.config.work_sha256()),
        logs=this.folder.path / "tracked",
    )
    write_atomically(done, weights_to_bytes(trained))
    return trained


def compression(this: "Run", trained: Student, ensemble: Ensemble) -> Compression:
    """Prune, quantize, measure, and ship what passes the gate."""
    done = this.folder.checkpoint("compression.json")
    if done.is_file():
        result = _stored_compression(this, json.loads(done.read_text()))
    else:
        result = _compress(this, trained, ensemble)
        stages = [asdict(stage) for stage in result.stages]
        stored = {"stages": stages, "reason": result.reason, "met": result.met}
        write_atomically(done, json.dumps(stored))
    if not result.met:
        this.warn(result.reason)
    return result


def evaluate(this: "Run", roster: Roster, releases: Mapping[str, LabelRelease]) -> Releases:
    """Each teacher's labels on the public test rows; simulation only, costs nothing.

    Only where `releases` shows each site's own: there is no teacher to see in a sum.
    """
    if this.simulation is None or not releases:
        return {}
    test = this.simulation.test_rows

    def read(site: str, answer: Answer) -> LabelRelease:
        return messages.read_release(
            answer,
            question=replace(this.questions[site], proxy_sha256=test.sha256),
            num_rows=len(test.rows),
            event=NoOpDpEvent(),
            parameters=(),
        )

    if (stored := _load(this, "evaluate", read)) is not None:
        return stored
    answers = ask_sites(
        this.grid,
        roster.only(releases),
        messages.EVALUATE,
        this.questions,
        timeout=this.config.phase_timeout,
        up=this.wire.evaluation,
        down={},
        on_progress=partial(this.progress.step, "evaluate"),
    )
    labelled, failures = _read_all(answers, read)
    for site, why in failures.items():
        this.warn(f"{site} {why} in phase evaluate: its teacher has no score")
    _save(this, "evaluate", labelled)
    return labelled


def _compress(this: "Run", trained: Student, ensemble: Ensemble) -> Compression:
    return compress(
        trained,
        this.public.proxy,
        ensemble.target,
        classes=this.public.classes,
        settings=compression_of(this.config),
        directory=this.folder.path,
        seed=this.config.seed,
        privacy={
            "mechanism": this.config.mechanism,
            "epsilon": this.config.epsilon,
            "delta": this.config.delta,
            "trust": this.config.trust,
        },
        progress=partial(this.progress.step, "compression"),
    )


def _read_all(answers: dict[str, Answer], read: Reader) -> tuple[Releases, dict[str, str]]:
    """Releases by site, and the others' failures in words."""
    releases, failures = {}, {}
    for site, answer in answers.items():
        if answer.status != messages.OK:
            failures[site] = reason(answer.status)
            continue
        try:
            releases[site] = read(site, answer)
        except DataError:
            failures[site] = reason("malformed")
    return releases, failures


def _label_reader(this: "Run") -> Reader:
    """Reads a site's answer to its question, checked against its plan."""
    proxy = this.public.proxy

    def read(site: str, answer: Answer) -> LabelRelease:
        question = this.questions[site]
        mechanism = mechanism_named(question.mechanism)
        return messages.read_release(
            answer,
            question=question,
            num_rows=len(proxy.rows),
            event=mechanism.plan(question, proxy, rows_at_least=0).event,
            parameters=mechanism.parameters,
        )

    return read


def _leave_out(this: "Run", phase: str, failures: dict[str, str], num_sites: int) -> None:
    """Warn about sites that are left out; end the run when too few remain."""
    reasons = [f"{site} {why}" for site, why in failures.items()]
    for why in reasons:
        this.warn(f"{why} in phase {phase}: the run goes on without it")
    require_sites(num_sites - len(failures), num_sites, this.config.min_sites, reasons)


def _save(this: "Run", phase: str, releases: Releases) -> None:
    """Checkpoint of a phase that asked the sites; the index is written last."""
    for site, release in releases.items():
        write_atomically(this.folder.checkpoint(f"{site}.{phase}"), encode_release(release))
    index = {"sites": list(releases), "wire": asdict(this.wire)}
    write_atomically(this.folder.checkpoint(f"{phase}.json"), json.dumps(index))


def _load(this: "Run", phase: str, read: Reader) -> Releases | None:
    """The releases of a finished phase, None where it is not finished."""
    path = this.folder.checkpoint(f"{phase}.json")
    if not path.is_file():
        return None
    index = json.loads(path.read_text())
    for direction, sizes in index["wire"].items():
        getattr(this.wire, direction).update(sizes)
    releases = {}
    for site in index["sites"]:
        data = this.folder.checkpoint(f"{site}.{phase}").read_bytes()
        releases[site] = read(site, Answer(site=site, status=messages.OK, release=data))
    return releases


def _stored_compression(this: "Run", stored: dict[str, Any]) -> Compression:
    return Compression(
        shipped=this.folder.path / "student.onnx",
        fp32=this.folder.path / "student.fp32.onnx",
        stages=tuple(Stage(**stage) for stage in stored["stages"]),
        reason=stored["reason"],
        met=stored["met"],
    )
