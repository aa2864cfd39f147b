"""The README's first command, `flwr run simulations/banks_3 --stream`, as a user types it."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load
from sklearn.metrics import roc_auc_score

from fedistill.config import RunConfig
from fedistill.federation.simulation import prepare_data
from fedistill.privacy.receipts import read_receipts
from tests.e2e.conftest import APP, REPOSITORY, RESULTS, SITES, Flower, own_flower
from tests.e2e.ledgers import account

pytestmark = pytest.mark.e2e

EPSILON = 1.0
MOST_BYTES_UP = 30_720
HEADER = 132
NO_NETWORK = ("unshare", "-n", "sh", "-c")
COMMANDS = f"flwr run {APP} --stream && flwr list --format json > {{listed}}"


@dataclass(frozen=True)
class Job:
    """The finished command: what Flower says of the run, what was printed, the run folder."""

    flower: Flower
    run: dict[str, object]
    printed: str
    folder: Path
    offline: bool

    @property
    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    """One run for all tests here, without a network where this machine lets us take it away."""
    loopback = [*NO_NETWORK, "ip link set lo up"]
    offline = subprocess.run(["sh", "-c", "command -v unshare ip"], capture_output=True).returncode
    offline = offline == 0 and subprocess.run(loopback, capture_output=True).returncode == 0
    with own_flower() as flower:
        listed = flower.folder / "runs.json"
        commands = COMMANDS.format(listed=listed)
        ran = subprocess.run(
            [*loopback[:-1], f"{loopback[-1]} && {commands}"]
            if offline
            else ["sh", "-c", commands],
            env=flower.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        (run,) = json.loads(listed.read_text())["runs"]
        (folder,) = flower.run_folders() or [Path()]
        yield Job(flower, run, ran.stdout + ran.stderr, folder, offline)


def test_it_finishes_and_leaves_every_promised_file(job: Job) -> None:
    assert job.run["status"] == "finished:completed", job.printed
    assert job.folder.name == job.run["run-id"]
    assert {path.name for path in job.folder.iterdir()} >= RESULTS
    assert all((job.folder / f"{site}.ledger.db").is_file() for site in SITES)


def test_it_needs_no_network(job: Job) -> None:
    if not job.offline:
        pytest.skip("this user may not take the network away")
    assert job.run["status"] == "finished:completed"


def test_it_prints_who_paid_and_what_the_student_scores(job: Job) -> None:
    assert "Who paid what" in job.printed
    assert "shipped file" in job.printed
    assert str(job.folder / "report.html") in job.printed.replace("\n", "")


def test_the_summary_keeps_its_keys(job: Job) -> None:
    promised = {"task", "dataset", "mechanism", "seed", "metrics", "privacy", "wire"}
    assert job.summary.keys() >= promised | {"compression", "timings"}
    assert job.summary["dataset"] == "credit_default"
    assert job.summary["metrics"]["teachers"] is None
    assert job.summary["warnings"] == []


def test_no_site_pays_more_than_epsilon(job: Job) -> None:
    assert job.summary["privacy"]["sites"].keys() == set(SITES)
    for paid in job.summary["privacy"]["sites"].values():
        assert 0 < paid["epsilon"] <= EPSILON
        assert paid["total_epsilon"] == paid["epsilon"]
        assert paid["remaining_epsilon"] == pytest.approx(EPSILON - paid["epsilon"])


def test_no_site_sends_more_than_30_kib(job: Job) -> None:
    assert job.summary["wire"]["sites"].keys() == set(SITES)
    assert all(0 < s["bytes_up"] <= MOST_BYTES_UP for s in job.summary["wire"]["sites"].values())


def test_receipts_say_what_left_and_the_ledger_what_was_charged(job: Job) -> None:
    receipts = {receipt.site: receipt for receipt in read_receipts(job.folder / "receipts.jsonl")}
    assert receipts.keys() == set(SITES)
    for site, receipt in receipts.items():
        ledger = account(job.folder / f"{site}.ledger.db")
        assert (ledger.charges, len(ledger.releases)) == (1, 1)
        assert receipt.sealed
        # Under masks, what left is not what the site keeps: 4 bytes a value and a header.
        assert receipt.sha256 not in ledger.releases
        assert receipt.bytes == 4 * (job.summary["split"]["proxy_rows"] + 1) + HEADER


def test_the_sum_is_that_of_the_releases_in_the_ledgers(job: Job) -> None:
    opened = json.loads((job.folder / "checkpoints" / "round-1.json").read_text())
    total = sum(codes_in(job.folder / f"{site}.ledger.db") for site in SITES)
    assert opened["sites"] == list(SITES)
    assert opened["total"][:-1] == total.tolist()


def codes_in(ledger: Path) -> npt.NDArray[np.int64]:
    """Codes of the one release in a ledger, read with SQLite and safetensors alone."""
    with closing(sqlite3.connect(ledger)) as connection:
        ((release,),) = connection.execute("SELECT release FROM releases")
    return load(release)["codes"].ravel().astype(np.int64)


@pytest.mark.parametrize("site", SITES)
def test_the_ledger_verifies(job: Job, site: str) -> None:
    ledger = job.folder / f"{site}.ledger.db"
    verified = job.flower.command("fedistill", "ledger", "verify", ledger)
    assert verified.returncode == 0, verified.stdout
    assert "1 charge" in verified.stdout


def test_the_shipped_file_is_pruned_int8_and_the_smallest(job: Job) -> None:
    stages = {stage["stage"]: stage for stage in job.summary["compression"]}
    (shipped,) = (stage for stage in stages.values() if stage["shipped"])
    assert (shipped["stage"], shipped["precision"]) == ("pruned+quantized", "int8")
    assert shipped["parameters"] < stages["float"]["parameters"] / 2
    assert shipped["bytes"] == (job.folder / "student.onnx").stat().st_size
    assert shipped["bytes"] == min(stage["bytes"] for stage in stages.values())
    assert shipped["agreement"] >= 0.99
    weights = onnx.load(job.folder / "student.onnx").graph.initializer
    assert any(weight.data_type == onnx.TensorProto.INT8 for weight in weights)


def test_the_shipped_file_scores_as_reported_and_close_to_its_target(job: Job) -> None:
    """Promise 7: the released student is the one that was measured."""
    test = prepare_data(RunConfig.from_flat(job.summary["config"])).test
    session = onnxruntime.InferenceSession(job.folder / "student.onnx")
    (probabilities,) = session.run(["probabilities"], {session.get_inputs()[0].name: test.rows})
    metrics = job.summary["metrics"]
    assert metrics["student"]["auc"] == pytest.approx(
        roc_auc_score(test.labels, probabilities[:, 1]), abs=1e-6
    )
    assert metrics["student"]["auc"] == pytest.approx(metrics["ensemble"]["auc"], abs=0.01)
    assert metrics["student"]["auc"] > 0.7


@pytest.mark.slow
def test_each_site_may_have_a_node_of_its_own(flower: Flower) -> None:
    run = ("flwr", "run", APP, "--stream", "--federation-config", "num-supernodes=3")
    printed = flower.command(*run).stdout
    (run,) = flower.runs()
    assert run["status"] == "finished:completed", printed
    (folder,) = flower.run_folders()
    assert {path.name for path in folder.iterdir()} >= RESULTS
    assert "(3 simulated SuperNodes)" in printed
