"""The site's policy: what it allows, whatever a server asks. No policy, no release."""

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedistill.data.encoder import Encoder
from fedistill.errors import PolicyRefusal
from fedistill.labels import EVALUATION, LabelQuestion
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.secagg import RoundTerms


class FloatNoise(StrEnum):
    """Whether mechanisms may answer whose library makes its noise in floating point."""

    REFUSE = "refuse"
    ALLOW = "allow"


class Evaluation(StrEnum):
    """Whether a student may be scored on rows that the site held out."""

    REFUSE = "refuse"
    ALLOW = "allow"


class Sealing(StrEnum):
    """Whether labels may leave by themselves, or only under the masks of a sum over sites."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class Trust(StrEnum):
    """Whose noise may protect the rows."""

    NONE = "none"
    """The site's own, whoever the others are."""

    SECAGG = "secagg"
    """That of `min-honest-sites` sites together, of which the server sees the sum."""


class Approval(StrEnum):
    """Whether the clauses decide alone, or the owner must also approve each run's question."""

    AUTOMATIC = "automatic"
    BY_HAND = "by-hand"


class Policy(BaseModel):
    """The clauses of `policy.toml` (kebab-case keys there)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )

    site: str = Field(description="public name of the site")
    population: str = Field(description="whom the rows are about; the budget belongs to them")
    rows_at_least: int = Field(
        ge=1, description="public lower bound on the number of rows; of units, where unit is group"
    )
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    unit: Unit = Unit.RECORD
    total_epsilon: float = Field(gt=0, description="budget of the population, over all releases")
    epsilon_per_release: float = Field(gt=0, description="bound on one release")
    delta: float = Field(gt=0, le=1e-3, description="delta of both")
    mechanisms: tuple[str, ...] = Field(description="mechanisms that may answer")
    teachers: tuple[str, ...] = Field(
        default=("",), description="models that may be trained; an import path runs its code here"
    )
    encoders: tuple[str, ...] = Field(
        default=("",),
        description="import paths of encoders whose code may run here; an ONNX file is approved "
        "with the proxy set, whose hash covers it",
    )
    probe_steps_at_most: int = Field(
        default=200, ge=1, description="bound on the work of one answer"
    )
    sgd_steps_at_most: int = Field(
        default=1_000, ge=1, description="bound on the work of one answer of dp-sgd"
    )
    float_noise: FloatNoise = Field(
        default=FloatNoise.REFUSE, description="whether noise may be made in floating point"
    )
    proxy_sha256: tuple[str, ...] = Field(description="approved proxy sets")
    evaluation: Evaluation = Field(
        default=Evaluation.REFUSE,
        description="whether students may be scored on the rows that are held out",
    )
    holdout_fraction: float = Field(
        default=0.0, ge=0, le=0.5, description="share of the units that nothing is learned from"
    )
    student_bytes_at_most: int = Field(
        default=2**24, ge=1, description="bound on the file of a student that is to be scored"
    )
    secure_aggregation: Sealing = Field(
        default=Sealing.OPTIONAL, description="whether labels may leave outside a sum over sites"
    )
    min_sites: int = Field(default=2, ge=2, description="sites that a round must invite at least")
    min_honest_sites: int = Field(
        default=2, ge=2, description="honest sites that a sum must hold at least"
    )
    colluding_sites: int = Field(
        default=0, ge=0, description="sites that may work with the server; rounds must bear them"
    )
    trust: Trust = Field(
        default=Trust.NONE,
        description="whose noise may protect the rows: the site's own alone, or that of all honest "
        "sites of a sum together",
    )
    total_epsilon_alone: float | None = Field(
        default=None,
        gt=0,
        description="budget against everybody but this site, where noise is shared: for the case "
        "that all others pool what they know",
    )
    approval: Approval = Field(
        default=Approval.AUTOMATIC,
        description="whether the clauses decide alone, or the owner also approves each run",
    )
    server_key: str = Field(
        default="",
        pattern="^([0-9a-f]{64})?$",
        description="public key (hex) by which the server countersigns receipts, compared with the "
        "coordinator; empty: nobody's countersignature is kept",
    )
    peers: Mapping[str, str] = Field(
        default={},
        description="public keys (hex) of the other sites, compared with their owners: nobody else "
        "takes part in a sum",
    )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a policy.

        Raises:
            PolicyRefusal: There is none, or it cannot be understood: then nothing is released.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text()), strict=False)
        except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
            raise PolicyRefusal(f"no release without a policy: {path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write `policy.toml`, readable by its owner alone; an existing one stays as it is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = tomli_w.dumps(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(text)
        partial.chmod(0o600)
        partial.replace(path)

    def check(
        self,
        question: LabelQuestion,
        *,
        units: tuple[Unit, ...],
        adjacency: Adjacency,
        float_noise: bool = False,
        encoder: Encoder | None = None,
    ) -> None:
        """Refuse a question that asks for more than a clause allows.

        Args:
            question: What the server asks.
            units: Whose presence the mechanism that it names can hide.
            adjacency: What that mechanism guarantees.
            float_noise: Whether it makes its noise in floating point.
            encoder: The proxy set's.

        Raises:
            PolicyRefusal: Names the clause, the value asked for and the bound.
        """
        if self.server_key:
            self.check_server(question.server_key)
        if question.mechanism == EVALUATION:
            self._check_evaluation()
        else:
            self._check_teacher(question, float_noise=float_noise)
        if question.holdout_fraction != self.holdout_fraction:
            self._refuse("holdout-fraction", question.holdout_fraction, f"{self.holdout_fraction}")
        code = encoder.import_path if encoder else ""
        if code not in self.encoders:
            allowed = ", ".join(repr(name) for name in self.encoders)
            self._refuse("encoders", repr(code), f"one of {allowed}")
        if question.proxy_sha256 not in self.proxy_sha256:
            approved = ", ".join(sha256[:12] for sha256 in self.proxy_sha256)
            self._refuse("proxy-sha256", question.proxy_sha256[:12], f"one of {approved}")
        if not 0 < question.epsilon <= self.epsilon_per_release:
            self._refuse(
                "epsilon-per-release",
                question.epsilon,
                f"above 0 and at most {self.epsilon_per_release}",
            )
        if question.epsilon > self.total_epsilon:
            self._refuse("total-epsilon", question.epsilon, f"at most {self.total_epsilon}")
        if question.trust != "none":
            self._check_shared(question)
        if not 0 < question.delta <= self.delta:
            self._refuse("delta", question.delta, f"at most {self.delta}")
        if self.delta * self.rows_at_least >= 1:
            self._refuse("delta", self.delta, f"below 1 / rows-at-least = {1 / self.rows_at_least}")
        gives = f"what {question.mechanism} guarantees"
        if self.unit not in units:
            self._refuse("unit", self.unit, f"{gives}, {' or '.join(units)}: allow another")
        if self.adjacency != adjacency:
            self._refuse("adjacency", self.adjacency, f"{gives}, {adjacency}: allow another")

    def _check_evaluation(self) -> None:
        if self.evaluation is Evaluation.REFUSE:
            self._refuse("evaluation", self.evaluation, "allow: a student is to be scored")
        if self.holdout_fraction == 0:
            self._refuse("holdout-fraction", 0, "above 0: a student is scored on rows held out")

    def _check_teacher(self, question: LabelQuestion, *, float_noise: bool) -> None:
        if question.mechanism not in self.mechanisms:
            self._refuse("mechanisms", question.mechanism, f"one of {', '.join(self.mechanisms)}")
        if question.teacher not in self.teachers:
            allowed = ", ".join(repr(teacher) for teacher in self.teachers)
            self._refuse("teachers", repr(question.teacher), f"one of {allowed}")
        if not 0 <= question.probe_steps <= self.probe_steps_at_most:
            self._refuse(
                "probe-steps-at-most",
                question.probe_steps,
                f"at least 0 and at most {self.probe_steps_at_most}",
            )
        if not 1 <= question.sgd_steps <= self.sgd_steps_at_most:
            self._refuse(
                "sgd-steps-at-most",
                question.sgd_steps,
                f"at least 1 and at most {self.sgd_steps_at_most}",
            )
        if float_noise and self.float_noise is FloatNoise.REFUSE:
            self._refuse(
                "float-noise",
                self.float_noise,
                f"allow: {question.mechanism} makes its noise in floating point",
            )

    def check_student(self, student: bytes) -> None:
        """Refuse a student that is too large to be scored.

        Raises:
            PolicyRefusal: Names the clause, the size and the bound.
        """
        if len(student) > self.student_bytes_at_most:
            self._refuse(
                "student-bytes-at-most",
                len(student),
                f"at most {self.student_bytes_at_most}: send a smaller student",
            )

    def _check_shared(self, question: LabelQuestion) -> None:
        if question.trust != self.trust:
            self._refuse("trust", question.trust, f"{self.trust}")
        if question.min_honest_sites < self.min_honest_sites:
            self._refuse(
                "min-honest-sites", question.min_honest_sites, f"at least {self.min_honest_sites}"
            )
        if self.total_epsilon_alone is None:
            self._refuse(
                "total-epsilon-alone", "none", "set where noise is shared: state that budget too"
            )

    def check_sealed(self, *, sealed: bool) -> None:
        """Refuse labels outside a sum where sums are required.

        Raises:
            PolicyRefusal: Names the clause.
        """
        if self.secure_aggregation is Sealing.REQUIRED and not sealed:
            self._refuse(
                "secure-aggregation", self.secure_aggregation, "met: ask in a sealed round"
            )

    def check_round(self, terms: RoundTerms) -> None:
        """Refuse a sealed round that promises less than a clause asks for.

        Raises:
            PolicyRefusal: Names the clause, the value and the bound.
        """
        for clause, value, least in (
            ("min-sites", terms.num_sites, self.min_sites),
            ("min-honest-sites", terms.min_honest, self.min_honest_sites),
            ("colluding-sites", terms.colluding, self.colluding_sites),
        ):
            if value < least:
                self._refuse(clause, value, f"at least {least}")

    def check_server(self, key: str) -> None:
        """Refuse another server's key (hex) than the pinned one, and any where none is pinned.

        Raises:
            PolicyRefusal: Names the clause.
        """
        if not self.server_key or key != self.server_key:
            self._refuse(
                "server-key",
                repr(self.server_key[:12]),
                f"{key[:12]!r}: compare the server's key with its coordinator, then pin it",
            )

    def check_peers(self, terms: RoundTerms) -> None:
        """Refuse a sealed round with a site that is not pinned, or by another key.

        Raises:
            PolicyRefusal: Names the clause and the site.
        """
        for site, key in terms.identities:
            if site != self.site and self.pinned.get(site) != key:
                self._refuse(
                    "peers",
                    f"{site}, {key.hex()[:12]}",
                    "pinned: compare the fingerprint with that site's own people",
                )

    @property
    def pinned(self) -> dict[str, bytes]:
        """Raw public keys of the peers."""
        return {site: bytes.fromhex(key) for site, key in self.peers.items()}

    def _refuse(self, clause: str, value: object, bound: str) -> None:
        raise PolicyRefusal(
            f"policy of {self.site}: {clause}={value} must be {bound}", clause=clause
        )
