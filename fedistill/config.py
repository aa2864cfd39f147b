"""RunConfig: the Flower run config, validated once at the edge and frozen inside.

Keys are kebab-case in `pyproject.toml` and on the command line (`budget-epsilon`), snake_case in
Python (`budget_epsilon`). Every bound that does not depend on data is checked here, before any
site is asked and any budget is spent.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from fedistill import config_rules as rules
from fedistill.aggregation_rules import CORRECTION_ROUNDS, FEDERATED, check_aggregation
from fedistill.config_rules import Scalar
from fedistill.errors import ConfigError


class RunConfig(BaseModel):
    """What a run asks for. Each field's description is the meaning of its key."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )

    dataset: Annotated[str, AfterValidator(rules.dataset)] = Field(
        "credit_default", description="a shipped data set's name, or a path to CSV, Parquet or npz"
    )
    proxy_path: rules.AbsolutePath = Field(
        "",
        description="of a deployment: the published proxy set's file; empty: a simulation, which "
        "cuts `dataset`",
    )
    test_path: rules.AbsolutePath = Field(
        "", description="of a deployment: public rows with labels, CSV, Parquet or npz"
    )
    classes: Annotated[str, AfterValidator(rules.class_names)] = Field(
        "", description="of a deployment: comma-separated classes, in the order agreed with sites"
    )
    label_column: str = Field(
        "", description="the column to predict; empty: the set's own, `y` in npz"
    )
    site_column: str = Field(
        "", description="the column that says whose row it is; empty: use `partition`"
    )
    unit_column: str = Field(
        "",
        description="the column that groups the rows of one person, to protect them as one; "
        "empty: a row is a person",
    )
    ignore_columns: Annotated[str, AfterValidator(rules.columns)] = Field(
        "", description="comma-separated columns that are no features"
    )
    num_sites: int = Field(3, ge=1, le=1000, description="number of sites without `site-column`")
    min_sites: int = Field(
        2, ge=1, le=1000, description="the run goes on while this many sites answer"
    )
    site_names: Annotated[str, AfterValidator(rules.site_names)] = Field(
        "", description="comma-separated names of the first sites; the others are site_<i>"
    )
    partition: Annotated[str, AfterValidator(rules.partition)] = Field(
        "iid",
        description="how rows go to sites: `iid`, `quantile:COLUMN` or `dirichlet:ALPHA`",
    )
    encoder: Annotated[str, AfterValidator(rules.encoder)] = Field(
        "",
        description="public encoder of images or text: an ONNX file's full path, or an import path "
        "`package.module:factory`; empty: the columns themselves",
    )
    proxy_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="share of rows that become the public, unlabelled proxy set"
    )
    test_fraction: float = Field(
        0.15, gt=0, lt=0.9, description="share of rows that only measure the result"
    )
    holdout_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of its units that each site keeps out of training, to score the student "
        "on them with noise; 0: none",
    )
    evaluation_epsilon: float = Field(
        0.5, gt=0, le=100, description="what that scoring may cost each site, beside `epsilon`"
    )
    mechanism: str = Field(
        "dp-probe",
        min_length=1,
        description="how sites label the proxy set privately: `dp-probe`, `sharded`, `votes`, "
        "`clipped`, `dp-sgd`, `dp-ebm`, or a plug-in",
    )
    site_mechanisms: Annotated[str, AfterValidator(rules.site_mechanisms)] = Field(
        "",
        description="sites that answer otherwise: `SITE=MECHANISM` or `SITE=MECHANISM:TEACHER`, "
        "with commas between them",
    )
    teacher: str = Field(
        "",
        description="the model that `sharded` and `clipped` train (empty: `logistic`), or `dp-sgd` "
        "(`mlp`, `cnn`, an import path; empty: `mlp`)",
    )
    epsilon: float = Field(1.0, gt=0, le=100, description="what this run may cost each site")
    budget_epsilon: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="each site's budget over all runs; 0: `epsilon`, and `evaluation-epsilon` if "
        "units are held out",
    )
    delta: float = Field(
        1e-5,
        gt=0,
        le=1e-3,
        description="the delta at which epsilon is stated; choose it well below 1 / rows",
    )
    ledger_dir: rules.AbsolutePath = Field(
        "", description="folder of the sites' ledgers; empty: the run folder, so fresh ones"
    )
    countersign_dir: rules.AbsolutePath = Field(
        "",
        description="folder of the server's key and of the receipts that it countersigned; empty: "
        "beside the ledgers, of a deployment `$FEDISTILL_HOME/server`",
    )
    rounds: int = Field(
        0, ge=0, le=100, description="federation rounds of `corrections`; 0: what suits it"
    )
    solver: Annotated[str, rules.one_of("combined", "gradient", "moment")] = Field(
        "combined",
        description="how dp-probe learns: one noised `moment`, noised `gradient` steps, or both",
    )
    probe_steps: int = Field(
        0, ge=0, le=200, description="noised sums of dp-probe; 0: what suits the solver"
    )
    shards: int = Field(
        100, ge=2, le=10_000, description="disjoint shards of `sharded`, a teacher each"
    )
    queries: int = Field(
        300, ge=1, le=100_000, description="proxy rows that `sharded` answers at most"
    )
    answers: Annotated[str, rules.one_of("soft", "confident")] = Field(
        "soft",
        description="of `sharded`: `soft` labels of all rows asked, or `confident` votes on those "
        "where teachers agree",
    )
    confidence: float = Field(
        0.8, gt=0, le=1, description="share of the teachers that must agree for a confident answer"
    )
    answers_at_most: int = Field(
        100, ge=1, le=100_000, description="confident answers after which `sharded` stops"
    )
    cells: int = Field(
        100, ge=2, le=10_000, description="public cells of each partition of `votes`"
    )
    partitions: int = Field(
        1, ge=1, le=100, description="partitions of `votes`; a row counts in one cell of each"
    )
    clip_norm: float = Field(
        100.0, gt=0, le=1e6, description="L2 bound of `clipped` on all log-odds together"
    )
    sgd_steps: int = Field(100, ge=1, le=10_000, description="noisy gradient steps of `dp-sgd`")
    sgd_sampling_rate: float = Field(
        0.2, gt=0, le=1, description="chance of each row to take part in a step of `dp-sgd`"
    )
    sgd_clip: float = Field(
        0.5, gt=0, le=1e6, description="L2 bound of a row's gradient in `dp-sgd`"
    )
    sgd_learning_rate: float = Field(
        0.3, gt=0, le=1e6, description="learning rate of `dp-sgd`, momentum 0.9"
    )
    float_noise: Annotated[str, rules.one_of("refuse", "allow")] = Field(
        "refuse",
        description="whether sites may answer with floating-point noise, which `dp-sgd` and "
        "`dp-ebm` make",
    )
    secure_aggregation: bool = Field(
        True, description="whether the server sees sums over sites only"
    )
    trust: Annotated[str, rules.one_of("none", "secagg")] = Field(
        "none",
        description="`none`: each site's own noise protects it from everybody; `secagg`: the sites "
        "share one portion of noise, which protects them from the server",
    )
    min_honest_sites: int = Field(
        2, ge=2, le=1000, description="honest sites that a sum must hold at least"
    )
    colluding_sites: int = Field(
        0, ge=0, le=998, description="sites that may work together with the server"
    )
    ensemble_weights: Annotated[
        str, rules.one_of("auto", "agreement", "uniform", "median", "trimmed")
    ] = Field(
        "auto",
        description="how sites count: by noise and public `agreement`, `uniform`, or against sites "
        "that lie by their `median` or `trimmed` mean; `auto`: the first, or under secure "
        "aggregation, which hides single sites, the second",
    )
    trim: int = Field(
        1, ge=1, le=499, description="sites that `trimmed` cuts at each end, in every direction"
    )
    student: Annotated[str, AfterValidator(rules.student)] = Field(
        "mlp",
        description="the student's architecture: `mlp` for tables; `cnn`, `resnet` or `vit` for "
        "square images; or your own network, an import path `package.module:factory`",
    )
    augmentation: Annotated[str, rules.one_of("auto", "affine", "none")] = Field(
        "auto",
        description="what the student sees besides public rows: images moved at random (`affine`), "
        "or nothing (`none`); `auto`: images for `cnn`, `resnet` and `vit`, else rows with swapped "
        "entries",
    )
    label_propagation: bool = Field(
        False,
        description="whether a student of images learns labels that were spread over images whose "
        "public features lie close",
    )
    self_training: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of its target that a student of images replaces by its own answers in "
        "each of 20 steps, after a quarter of its training; 0: none",
    )
    student_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="passes over the proxy images of a student of images; 0: what suits it",
    )
    prune_ratio: float = Field(
        0.5, ge=0, le=0.9, description="share of the student's channels to prune"
    )
    quantize: Annotated[str, rules.one_of("int8", "none")] = Field(
        "int8", description="precision of the shipped student: `int8` or `none`"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of training alone, never of noise")
    output_dir: rules.AbsolutePath = Field(
        "", description="the run folder; empty: $FEDISTILL_HOME/runs/<run-id>"
    )
    resume: str = Field(
        "",
        pattern=r"^[0-9]{0,20}$",
        description="the id of an earlier run that is gone on with, in its folder; empty: none",
    )
    phase_timeout: float = Field(
        600.0, gt=0, le=86_400, description="seconds to wait for the sites' answers in a phase"
    )

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if not self.site_column and self.min_sites > self.num_sites:
            raise ConfigError(
                f"min-sites={self.min_sites} must be at most num-sites={self.num_sites}: "
                "lower min-sites"
            )
        if self.student == "mlp" and self.augmentation == "affine":
            raise ConfigError(
                "augmentation='affine' moves images, and student='mlp' learns rows of a table: set "
                "student to 'cnn', 'resnet' or 'vit', or augmentation to 'auto'"
            )
        if self.student in rules.STUDENTS[1:] and self.holdout_fraction > 0:
            raise ConfigError(
                f"holdout-fraction={self.holdout_fraction} must be 0 with student="
                f"{self.student!r}: sites run no student with convolutions on held-out rows; set "
                "student='mlp', or 0"
            )
        if self.min_sites < self.sites_needed:
            raise ConfigError(
                f"min-sites={self.min_sites} must be at least {self.sites_needed} with "
                f"ensemble-weights={self.ensemble_weights!r}"
                + (f" and trim={self.trim}" if self.ensemble_weights == "trimmed" else "")
                + ", or one site decides alone: raise min-sites"
                + (" or lower trim" if self.ensemble_weights == "trimmed" else "")
            )
        if bool(self.proxy_path) != bool(self.test_path) or (self.proxy_path and not self.classes):
            raise ConfigError(
                f"proxy-path={self.proxy_path!r}, test-path={self.test_path!r} and classes="
                f"{self.classes!r} must be given together: a deployment needs all, a simulation "
                "none"
            )
        if self.budget < self.epsilon:
            raise ConfigError(
                f"budget-epsilon={self.budget_epsilon} must be 0 or at least "
                f"epsilon={self.epsilon}: raise budget-epsilon or lower epsilon"
            )
        check_aggregation(
            secure=self.secure_aggregation,
            trust=self.trust,
            weights=self.ensemble_weights,
            answers=self.answers,
            rounds=self.rounds,
            mechanisms=frozenset([self.mechanism, *(name for _, name, _ in self.exceptions)]),
        )
        if self.proxy_fraction + self.test_fraction >= 0.95:
            raise ConfigError(
                f"proxy-fraction={self.proxy_fraction} and test-fraction={self.test_fraction} "
                "must sum to less than 0.95: lower one of them"
            )
        if len(set(self.sites)) < len(self.sites):
            raise ConfigError(
                f"site-names={self.site_names!r} must name each site differently: rename one"
            )
        return self

    @classmethod
    def from_flat(cls, values: Mapping[str, Scalar]) -> "RunConfig":
        """The validated config of kebab-case keys; missing keys take their defaults.

        Raises:
            ConfigError: Names the key, its value and the bound; an unknown key comes with the
                nearest known one.
        """
        known = [key.name for key in describe_keys()]
        for key in values:
            if key not in known:
                raise ConfigError(rules.unknown_key(key, known))
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(rules.sentence(error.errors(include_url=False)[0])) from None

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites when there is no `site-column`, whose values name them otherwise."""
        named = rules.split_names(self.site_names)[: self.num_sites]
        return named + tuple(f"site_{i}" for i in range(len(named), self.num_sites))

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the columns that are no features."""
        return rules.split_names(self.ignore_columns)

    @property
    def budget(self) -> float:
        """Each site's whole budget in epsilon at `delta`."""
        return self.budget_epsilon or self.epsilon + self.epsilon_held_out

    @property
    def epsilon_held_out(self) -> float:
        """What scoring the student on held-out units may cost a site; 0 where none are."""
        return self.evaluation_epsilon if self.holdout_fraction > 0 else 0.0

    @property
    def weighting(self) -> str:
        """How sites count, with `auto` decided."""
        if self.ensemble_weights != "auto":
            return self.ensemble_weights
        return "uniform" if self.secure_aggregation else "agreement"

    @property
    def num_rounds(self) -> int:
        """Federation rounds, with 0 decided."""
        if self.rounds == 0:
            return CORRECTION_ROUNDS if self.mechanism == FEDERATED else 1
        return self.rounds

    @property
    def sites_needed(self) -> int:
        """Answers below which `ensemble-weights` cannot be computed."""
        return {"median": 3, "trimmed": 2 * self.trim + 1}.get(self.ensemble_weights, 1)

    def mechanism_of(self, site: str) -> tuple[str, str]:
        """Mechanism and teacher of a site."""
        for name, mechanism, teacher in self.exceptions:
            if name == site:
                return mechanism, teacher
        return self.mechanism, self.teacher

    @property
    def exceptions(self) -> tuple[tuple[str, str, str], ...]:
        """Sites that `site-mechanisms` names, each with its mechanism and teacher."""
        found = []
        for entry in rules.split_names(self.site_mechanisms):
            site, _, answer = entry.partition("=")
            mechanism, _, teacher = answer.partition(":")
            found.append((site.strip(), mechanism.strip(), teacher.strip()))
        return tuple(found)

    def to_flat(self) -> dict[str, Scalar]:
        """All keys, kebab-case; `from_flat` takes them back."""
        return self.model_dump(by_alias=True)

    def sha256(self) -> str:
        """Hex digest of the canonical JSON of all keys."""
        text = json.dumps(self.to_flat(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def work_sha256(self) -> str:
        """`sha256` of what a run computes, whichever folder it is in."""
        return self.model_copy(update={"output_dir": "", "resume": ""}).sha256()


@dataclass(frozen=True, kw_only=True)
class Key:
    """One run-config key as documented: its default and its meaning."""

    name: str
    default: Scalar
    meaning: str


def describe_keys() -> tuple[Key, ...]:
    """Every key in the order of the documentation."""
    return tuple(
        Key(name=str(field.alias), default=field.default, meaning=str(field.description))
        for field in RunConfig.model_fields.values()
    )
