"""What must never leave a site, and what does, as bytes that a spy can look for."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedistill.compress import predict_file
from fedistill.config import RunConfig
from fedistill.federation.deployment import open_deployment
from fedistill.federation.simulation import evaluation_question, questions_of
from fedistill.mechanisms import dp_probe, sum_vectors
from fedistill.mechanisms.evaluation import score_edges
from fedistill.mechanisms.sent_student import student_sha256, student_to_bytes
from fedistill.privacy.ledger_key import load_key
from fedistill.site import LocalAgent
from fedistill.site.daemon import make_agent
from fedistill.site.evaluating import evaluated_integers
from fedistill.site.site_config import SiteConfig
from tests.deployed import Site

KINDS = ("<i2", "<i4", "<i8", "<u4", "<f4", "<f8")


def encodings(integers: np.ndarray) -> list[bytes]:
    """The same numbers in every type that a message might have."""
    kinds = KINDS if np.abs(integers).max() < 2**15 else KINDS[1:]
    return [integers.astype(kind).tobytes() for kind in kinds]


def twin_of(site: Site) -> LocalAgent:
    """An agent with the site's rows and key, and a copy of its untouched ledger."""
    folder = site.folder.with_name(f"twin of {site.name}")
    shutil.copytree(site.folder, folder)
    return make_agent(SiteConfig.load(folder / "agent.toml"), site.policy())


def unnoised_codes(twin: LocalAgent, config: RunConfig) -> np.ndarray:
    """The teacher's labels as they would be sent if nothing were added to them."""
    question = questions_of(config, open_deployment(config))[twin.policy.site]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dp_probe, "add_noise", lambda sums, scale: sums)
        return twin.answer(question).release.codes


def unnoised_tables(twin: LocalAgent, config: RunConfig, student: Path) -> np.ndarray:
    """The counts of the shipped file on held-out rows, with nothing added."""
    sent = student_to_bytes(
        student.read_bytes(), score_edges(predict_file(student, twin.proxy.rows))
    )
    asked = evaluation_question(config, open_deployment(config))
    named = asked.__class__(**{**vars(asked), "broadcast_sha256": student_sha256(sent)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sum_vectors, "add_noise", lambda sums, scale: sums)
        return evaluated_integers(twin, named, 1, sent).integers


def rows_and_key(site: Site, twin: LocalAgent) -> list[bytes]:
    """Every private row as text and as numbers, and the signing key in both of its forms."""
    key = site.folder / "identity.key"
    lines = (site.folder / "rows.csv").read_bytes().splitlines()[1:]
    rows = [row.tobytes() for row in twin.rows.rows]
    # A row's bytes from the first to the last, since a short one is looked for as a whole.
    return [*lines, *rows, load_key(key).private.private_bytes_raw(), key.read_bytes()]
