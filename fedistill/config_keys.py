"""The keys of the run config, by the part of a run that they are about.

Each field's description is the meaning of its key; the order is that of the documentation.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedistill import config_rules as rules


class Keys(BaseModel):
    """What all keys share: strict types, kebab-case names outside Python, no change afterwards."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )


class DataKeys(Keys):
    """What is learned from, and whose rows they are."""

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
        description="public encoder of images or text: an ONNX file's full path, an import path "
        "`package.module:factory`, or `self-supervised`, which a simulation trains on its proxy "
        "images; empty: the columns themselves",
    )
    encoder_epochs: int = Field(
        60, ge=1, le=10_000, description="passes over the proxy images of that training"
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


class AnswerKeys(Keys):
    """How sites answer, and what their answers may cost."""

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


class SumKeys(Keys):
    """How answers come together."""

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


class RunKeys(Keys):
    """The run itself."""

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
