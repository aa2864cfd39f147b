"""A recipe's training in processes of its own, which `accelerate launch` starts.

A server is one process, and several GPUs want one each. So the server leaves a job in a folder,
starts the processes and waits; the main one leaves the student there. Which devices they take is
accelerate's to say: `accelerate config` writes a file of it, which ACCELERATE_CONFIG_FILE names.
What a job holds is public.

    python -m fedistill.distill.launch JOB    what each process runs
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from fedistill.data import ProxySet
from fedistill.distill.engine import train_by_recipe
from fedistill.distill.material import Material
from fedistill.distill.session import Session
from fedistill.distill.students import Student
from fedistill.distill.training import Learning, check_recipe
from fedistill.distill.training_state import Checkpoints
from fedistill.errors import RunFailed
from fedistill.features.affine import Affine
from fedistill.labels import EnsembleTarget

CONFIG_VARIABLE = "ACCELERATE_CONFIG_FILE"
_STEP = "step "
_TOLD = 200
_LAST_LINES = 12


@dataclass(frozen=True)
class Job:
    """A folder with all that a training needs, and later the student.

    Attributes:
        folder: Its own; what an earlier try left is overwritten.
    """

    folder: Path

    @property
    def student(self) -> Path:
        """Weights of the trained student."""
        return self.folder / "trained.safetensors"

    def write(
        self, proxy: ProxySet, material: Material, learning: Learning, session: Session
    ) -> None:
        """Leave the job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.student.unlink(missing_ok=True)
        proxy.save(self.folder / "proxy.bin")
        arrays: dict[str, npt.NDArray[Any]] = {
            "rows": material.rows,
            "log_odds": material.target.log_odds,
            "std": material.target.std,
            "held_rows": material.held_rows,
            "held_log_odds": material.held_log_odds,
        }
        copied = {name: torch.from_numpy(each.copy()) for name, each in arrays.items()}
        save_file(copied, self.folder / "material.safetensors")
        checkpoints = session.checkpoints
        about = {
            "learning": asdict(learning),
            "num_sites": material.target.num_sites,
            "seed": session.seed,
            "views": None if session.views is None else asdict(session.views),
            "track": session.track,
            "logs": str(session.logs) if session.logs else "",
            "checkpoints": str(checkpoints.folder) if checkpoints else "",
            "config_sha256": checkpoints.config_sha256 if checkpoints else "",
        }
        (self.folder / "job.json").write_text(json.dumps(about))

    def run(self) -> None:
        """Train, in one of the processes; the main one leaves the student."""
        about = json.loads((self.folder / "job.json").read_text())
        proxy = ProxySet.load(self.folder / "proxy.bin")
        arrays = {
            name: tensor.numpy()
            for name, tensor in load_file(self.folder / "material.safetensors").items()
        }
        material = Material(
            rows=arrays["rows"],
            target=EnsembleTarget(
                log_odds=arrays["log_odds"], std=arrays["std"], num_sites=about["num_sites"]
            ),
            held_rows=arrays["held_rows"],
            held_log_odds=arrays["held_log_odds"],
        )
        folder = about["checkpoints"]
        session = Session(
            seed=about["seed"],
            checkpoints=Checkpoints(Path(folder), about["config_sha256"]) if folder else None,
            views=None if about["views"] is None else Affine(**about["views"]),
            track=about["track"],
            logs=Path(about["logs"]) if about["logs"] else None,
            progress=_told,
        )
        torch.manual_seed(session.seed)
        learning = Learning(**about["learning"])
        plan, student, guide = check_recipe(proxy, arrays["log_odds"].shape[1] + 1, learning)
        train_by_recipe(student, material, plan, guide, session)
        if os.environ.get("RANK", "0") == "0":
            save_file(student.state_dict(), self.student)


def train_in_processes(
    student: Student,
    proxy: ProxySet,
    material: Material,
    learning: Learning,
    session: Session,
    *,
    folder: Path,
) -> None:
    """Fit `student` in place, in `learning.processes` processes of its own.

    Args:
        student: Made by the same `learning`.
        proxy: The public rows.
        material: What it learns from.
        learning: How.
        session: Its progress is that of the main process.
        folder: Of the job.

    Raises:
        RunFailed: A process ended without a student; comes with its last words.
    """
    job = Job(folder)
    job.write(proxy, material, replace(learning, processes=1), session)
    command = [*launcher(learning.processes), "-m", "fedistill.distill.launch", str(folder)]
    output = folder / "output.txt"
    with (
        output.open("w") as words,
        subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env=environment(learning.processes),
        ) as process,
    ):
        try:
            for done, total in _steps(process):
                if session.progress is not None:
                    session.progress(done, total)
        except BaseException:
            process.terminate()
            raise
    if process.returncode or not job.student.is_file():
        last = output.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        raise RunFailed(
            f"train-processes={learning.processes}: training ended with exit code "
            f"{process.returncode}: {' | '.join(last)}; mend that, or set train-processes=1"
        )
    student.load_state_dict(load_file(job.student))
    student.eval()


def launcher(processes: int) -> list[str]:
    """What starts so many processes, before `-m` and a module.

    `accelerate launch` by the user's own config file, or on this machine's GPUs alone. Where there
    are too few of these it is PyTorch's launcher: accelerate's asks for MPI on CPUs.
    """
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    if file := os.environ.get(CONFIG_VARIABLE):
        return [*launch, "--config_file", file, "--num_processes", str(processes)]
    if torch.cuda.device_count() < processes:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*torchrun, "--nproc_per_node", str(processes)]
    several = ["--multi_gpu"] if processes > 1 else []
    here = ["--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    return [*launch, *several, *here, "--mixed_precision", "bf16", "--dynamo_backend", "no"]


def environment(processes: int) -> dict[str, str]:
    """That of the processes: without what tells them that they belong to another group."""
    group = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    own = {name: value for name, value in os.environ.items() if name not in group}
    if torch.cuda.device_count() < processes and CONFIG_VARIABLE not in own:
        threads = max(1, (os.cpu_count() or 1) // processes)
        own = {"OMP_NUM_THREADS": str(threads), **own, "ACCELERATE_USE_CPU": "true"}
    return own


def _steps(process: "subprocess.Popen[str]") -> Iterator[tuple[int, int]]:
    """Steps done and in all, as the main process tells them."""
    for line in process.stdout or ():
        if line.startswith(_STEP):
            done, total = line.removeprefix(_STEP).split()
            yield int(done), int(total)


def _told(done: int, total: int) -> None:
    if done == total or done % max(1, total // _TOLD) == 0:
        print(f"{_STEP}{done} {total}", flush=True)


if __name__ == "__main__":
    Job(Path(sys.argv[1])).run()
