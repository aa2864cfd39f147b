"""`summary.json`: everything that a run found and cost, in the keys that programs rely on.

Figures that are not defined, infinite or not a number are written as null. Epsilons are the
accountant's, for the adjacency and unit that stand beside them.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from fedistill.errors import DataError
from fedistill.evaluate.calibration import CalibrationBin
from fedistill.evaluate.comparison import SiteComparison
from fedistill.evaluate.federated import FederatedScores
from fedistill.evaluate.figures import Count, Figure, Part
from fedistill.evaluate.files import write_atomically
from fedistill.evaluate.metrics import ClassScores, Scores


class Split(Part):
    """The public rows: what the student learned on and what it was scored on."""

    proxy_rows: Count
    test_rows: Count
    columns: Count
    classes: tuple[str, ...]
    proxy_sha256: str


class Metrics(Part):
    """Scores on the public test split.

    Attributes:
        student: The shipped file.
        student_fp32: The float student before compression.
        ensemble: The average of the sites' answers, which the student learned from.
        teachers: Each site's own answers; simulation only, None under secure aggregation.
        central_reference: A non-private model of all sites' rows; simulation only.
        student_classes: The shipped file class by class, by the class's name.
        student_calibration: Whether the shipped file's probabilities mean what they say.
        federated: The shipped file on rows that the sites held out, from noised counts; None where
            they held out none.
    """

    student: Scores
    student_fp32: Scores
    ensemble: Scores
    teachers: Mapping[str, Scores] | None
    central_reference: Scores | None
    student_classes: Mapping[str, ClassScores] = {}
    student_calibration: tuple[CalibrationBin, ...] = ()
    federated: FederatedScores | None = None


class Views(Part):
    """Epsilon of all that the site ever released, by who looks.

    None: no finite bound, or, in a deployment, known to the site alone.
    """

    everyone: Figure
    server: Figure


class SitePrivacy(Part):
    """What one site paid. `epsilon` is this run's charge, `total_epsilon` all charges composed.

    In a deployment `epsilon` is what the site was asked to pay at most; totals are its own, None.

    `mechanism` is what it answered with, and `float_noise` says whether that made its noise in
    floating point.
    """

    epsilon: Figure
    total_epsilon: Figure
    remaining_epsilon: Figure
    delta: float
    unit: str
    adjacency: str
    views: Views
    mechanism: str = ""
    float_noise: bool = False


class PersonPrivacy(Part):
    """What a person has spent in total, over all sites. None: no finite bound, or not known.

    Attributes:
        one_site: If no person is at two sites: the largest total of a site.
        every_site: For someone with a record at every site: all sites' charges composed.
        delta: The delta of both.
    """

    one_site: Figure
    every_site: Figure
    delta: float


class Privacy(Part):
    """What the sites paid, by site, and a person in total. `noise` names the sampler in words.

    `person` is None where no site paid, or where the sites' ledgers stay with their owners.
    """

    noise: str
    sites: Mapping[str, SitePrivacy]
    person: PersonPrivacy | None = None


class SiteWire(Part):
    """Bytes that crossed the wire: to the server, to the site, and to the server for scoring."""

    bytes_up: Count
    bytes_down: Count
    bytes_evaluation: Count


class Wire(Part):
    """What crossed the wire, by site."""

    sites: Mapping[str, SiteWire]


class Stage(Part):
    """One step of compression.

    Attributes:
        stage: `float`, or what was done to it, as in `pruned+quantized`.
        precision: Number format of the weights.
        shipped: Whether this is the file that was shipped.
        parameters: Number of weights.
        bytes: Size of the ONNX file.
        bytes_deflated: The same as it travels compressed, by zlib.
        metric: The quality gate's AUC: expected under the ensemble target, on proxy rows.
        agreement: Share of rows on which the file and the float student choose the same class.
        latency_ms_batch_1: Median milliseconds for one row, one thread.
        latency_ms_batch_256: Median milliseconds for 256 rows, one thread.
    """

    stage: str
    precision: str
    shipped: bool
    parameters: Count
    bytes: Count
    metric: Figure
    agreement: Figure
    latency_ms_batch_1: Figure
    latency_ms_batch_256: Figure
    bytes_deflated: Count | None = None


class Shipped(Part):
    """The file that was shipped, and why this one."""

    file: str
    reason: str


class Summary(Part):
    """The whole of `summary.json`.

    Attributes:
        run_id: Name of the run.
        started: When the run started, with its time zone.
        task: Kind of question, such as `binary classification`.
        guarantee: The privacy guarantee in one sentence: adjacency, unit and assumptions.
        sites: What each site put in and gains, by site; simulation only.
        left_out: Sites that take no part, and why.
        warnings: What the reader must know, such as a site that was left out.
        timings: Seconds by phase.
        config: The run config, by its kebab-case keys.
        versions: Versions of what computed the figures, by package.
    """

    run_id: str
    started: datetime
    task: str
    dataset: str
    mechanism: str
    seed: int
    split: Split
    metrics: Metrics
    privacy: Privacy
    guarantee: str
    wire: Wire
    compression: tuple[Stage, ...]
    shipped: Shipped
    timings: Mapping[str, float]
    sites: Mapping[str, SiteComparison] = {}
    left_out: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()
    config: Mapping[str, bool | int | float | str] = {}
    versions: Mapping[str, str] = {}

    @property
    def shipped_stage(self) -> Stage | None:
        """The stage of the shipped file, None when no stage says so."""
        return next((stage for stage in self.compression if stage.shipped), None)


def write_summary(summary: Summary, path: Path) -> None:
    """Write `summary` as JSON to `path`, complete or not at all. Raises OSError."""
    write_atomically(path, summary.model_dump_json(indent=2) + "\n")


def read_summary(path: Path) -> Summary:
    """Read a summary that `write_summary` wrote. Raises DataError when it is not one."""
    try:
        return Summary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): name a run's folder") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path}: not a summary.json of this version: {key}: {first['msg'].lower()}"
        ) from None
