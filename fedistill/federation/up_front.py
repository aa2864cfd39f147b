"""What is refused before anything runs, and so before anything is charged."""

from dataclasses import replace
from pathlib import Path

from dp_accounting import ComposedDpEvent, DpEvent

from fedistill.config import RunConfig
from fedistill.data.wording import suggestion
from fedistill.errors import ConfigError, LedgerError, PolicyRefusal
from fedistill.features import proxy_basis
from fedistill.federation.deployment import Deployment, open_deployment
from fedistill.federation.own_encoder import Progress
from fedistill.federation.public import Public
from fedistill.federation.run_folder import (
    RunFolder,
    check_run_folder,
    check_writable,
    ledger_path,
)
from fedistill.federation.simulation import (
    ROWS_AT_LEAST,
    Simulation,
    evaluation_question,
    policy_of,
    prepare_data,
    questions_of,
    unit_of,
)
from fedistill.labels import EVALUATION, LabelQuestion
from fedistill.mechanisms import (
    Mechanism,
    Plan,
    has_float_noise,
    is_summed,
    mechanism_named,
    mechanisms_that_protect,
    summable,
)
from fedistill.mechanisms.evaluation import UNITS, plan_evaluation
from fedistill.privacy.accountant import within_budget
from fedistill.privacy.grid import LARGEST_CODE
from fedistill.secagg import MODULUS
from fedistill.site import open_ledger


def prepare(config: RunConfig, progress: Progress | None = None) -> Simulation:
    """Load, split and register, and check what can be checked before a run starts.

    Args:
        config: What the run asks for.
        progress: Called with epochs done and in all where an encoder is trained first.

    Raises:
        BadInput: Names field, value and bound. Nothing was charged.
    """
    simulation = prepare_data(config, progress)
    _check(config, simulation)
    if config.holdout_fraction > 0:
        _check_fresh_budgets(config, simulation)
    if config.ledger_dir:
        check_writable("ledger-dir", Path(config.ledger_dir))
        _check_budgets(config, simulation)
    return simulation


def prepare_deployment(config: RunConfig) -> Deployment:
    """Read the coordinator's files, and check what can be checked before sites are asked.

    Raises:
        BadInput: Names field, value and bound. Nothing was charged.
    """
    deployment = open_deployment(config)
    _check(config, deployment)
    return deployment


def _check(config: RunConfig, public: Public) -> None:
    """What holds for both: enough sites, mechanisms that can answer, a folder for the run."""
    if config.min_sites > len(public.site_names):
        without = "".join(f"; {site}: {why}" for site, why in public.left_out.items())
        raise ConfigError(
            f"min-sites={config.min_sites} must be at most the number of sites that take part, "
            f"{len(public.site_names)}{without}: lower min-sites or bring more rows"
        )
    if config.secure_aggregation:
        _check_sums(config, len(public.site_names))
    _check_mechanisms(config, public)
    if config.student != "mlp" or config.recipe != "auto":
        from fedistill.federation.learning import check_student  # imports torch

        check_student(config, public)
    if config.quantize == "int8-qat":
        from fedistill.compress.qat import check_installed  # imports torch

        check_installed()
    if config.holdout_fraction > 0:
        _check_evaluation(config, public)
    if config.output_dir and not config.resume:
        check_run_folder(Path(config.output_dir), config)
    if config.countersign_dir:
        check_writable("countersign-dir", Path(config.countersign_dir))


def _check_sums(config: RunConfig, num_sites: int) -> None:
    """Refuse sums that so few sites cannot give."""
    needed = config.min_honest_sites + config.colluding_sites
    if num_sites < needed:
        raise ConfigError(
            f"min-honest-sites={config.min_honest_sites} and colluding-sites="
            f"{config.colluding_sites} need {needed} sites, and {num_sites} "
            f"take{'s' if num_sites == 1 else ''} part: invite more sites, or set "
            "secure-aggregation=false"
        )
    if num_sites * LARGEST_CODE >= MODULUS // 2:
        raise ConfigError(
            f"secure-aggregation=true takes up to {MODULUS // 2 // LARGEST_CODE} sites, not "
            f"{num_sites}: their sum would wrap around; set secure-aggregation=false"
        )


def _check_mechanisms(config: RunConfig, public: Public) -> None:
    """Refuse mechanisms, teachers and encoders that no site can answer with, before a run."""
    for site, _, _ in config.exceptions:
        if site not in public.site_names:
            raise ConfigError(
                f"site-mechanisms names {site!r}, which is no site that takes part: "
                f"{suggestion(site, public.site_names)}"
            )
    units = set()
    for question, where in _places(config, public).items():
        try:
            mechanism = mechanism_named(question.mechanism)
            _check_question(config, public, question, mechanism)
        except (ConfigError, PolicyRefusal) as refusal:
            raise ConfigError(f"{where}{refusal}") from None
        units.add(unit_of(config, mechanism))
    if len(units) > 1:
        raise ConfigError(
            f"site-mechanisms={config.site_mechanisms!r} mixes guarantees for "
            f"{' and '.join(sorted(units))}: choose mechanisms of one unit"
        )


def _plan(question: LabelQuestion, public: Public) -> Plan:
    """What the (first) answer of a site costs."""
    if is_summed(question):
        return summable(question.mechanism).plan_sum(
            question,
            public.proxy,
            rows_at_least=ROWS_AT_LEAST,
            num_sites=len(public.site_names),
        )
    return mechanism_named(question.mechanism).plan(
        question, public.proxy, rows_at_least=ROWS_AT_LEAST
    )


def _places(config: RunConfig, public: Public) -> dict[LabelQuestion, str]:
    """Each question once, with the key and site that a refusal must name, if not `mechanism`."""
    named = {site for site, _, _ in config.exceptions}
    places: dict[LabelQuestion, str] = {}
    for site, question in questions_of(config, public).items():
        where = f"site-mechanisms={config.site_mechanisms!r}, {site}: " if site in named else ""
        places[question] = where and places.get(question, where)
    return places


def _check_question(
    config: RunConfig, public: Public, question: LabelQuestion, mechanism: Mechanism
) -> None:
    _check_unit(config, question.mechanism, mechanism)
    if has_float_noise(mechanism) and config.float_noise == "refuse":
        raise PolicyRefusal(
            f"float-noise='refuse' must be 'allow' for mechanism={question.mechanism!r}, "
            "whose noise is made in floating point: see the page on sharp edges, or choose "
            "another mechanism"
        )
    _plan(question, public)
    if public.proxy.encoder is not None:
        proxy_basis(public.proxy)


def _check_unit(config: RunConfig, name: str, mechanism: Mechanism) -> None:
    unit = unit_of(config, mechanism)
    if unit in mechanism.units:
        return
    asked = (
        f"unit-column={config.unit_column!r} asks to protect all rows of a unit as one"
        if config.unit_column
        else "unit-column='' asks to protect single records"
    )
    raise ConfigError(
        f"{asked}, and mechanism={name!r} guarantees {' or '.join(mechanism.units)} level: choose "
        f"one of {', '.join(mechanisms_that_protect(unit))}, or "
        + ("leave unit-column empty" if config.unit_column else "name a unit-column")
    )


def events_of(config: RunConfig, public: Public, question: LabelQuestion) -> list[DpEvent]:
    """All that a run will charge a site that is asked `question`: each round, and the evaluation.

    Raises:
        PolicyRefusal: The question cannot be answered.
    """
    events = [
        _plan(replace(question, round=number), public).event
        for number in range(1, question.rounds + 1)
    ]
    if config.holdout_fraction > 0:
        events.append(_planned_evaluation(config, public).event)
    return events


def _asked(config: RunConfig) -> str:
    """What a run asks a budget for, in words."""
    words = f"epsilon={config.epsilon}"
    if config.holdout_fraction > 0:
        words += f" and evaluation-epsilon={config.evaluation_epsilon}"
    return words


def _planned_evaluation(config: RunConfig, public: Public) -> Plan:
    return plan_evaluation(
        evaluation_question(config, public),
        rows_at_least=ROWS_AT_LEAST,
        num_sites=len(public.site_names) if config.secure_aggregation else 1,
    )


def _check_evaluation(config: RunConfig, public: Public) -> None:
    """Refuse an evaluation that has no room, or protects another unit than the mechanism."""
    try:
        _planned_evaluation(config, public)
    except PolicyRefusal as refusal:
        raise ConfigError(f"evaluation-epsilon={config.evaluation_epsilon}: {refusal}") from None
    for question in questions_of(config, public).values():
        unit = unit_of(config, mechanism_named(question.mechanism))
        if unit not in UNITS:
            raise ConfigError(
                f"holdout-fraction={config.holdout_fraction} must be 0 with mechanism="
                f"{question.mechanism!r}, whose unit is a {unit}: scoring protects "
                f"{' or '.join(UNITS)} level; leave it 0, or choose another mechanism"
            )


def _check_fresh_budgets(config: RunConfig, simulation: Simulation) -> None:
    """Refuse labels and an evaluation that a fresh budget does not hold together."""
    for site, question in questions_of(config, simulation).items():
        policy = policy_of(config, simulation, site)
        if not within_budget(
            (),
            ComposedDpEvent(events_of(config, simulation, question)),
            budget_epsilon=policy.total_epsilon,
            delta=policy.delta,
            adjacency=policy.adjacency,
        ):
            raise ConfigError(
                f"budget-epsilon={config.budget_epsilon} must hold epsilon={config.epsilon} and "
                f"evaluation-epsilon={config.evaluation_epsilon} together: raise budget-epsilon, "
                "or lower one of them"
            )


def _check_budgets(config: RunConfig, simulation: Simulation) -> None:
    """Refuse a question that a persistent ledger would refuse anyway, in the owner's own words."""
    for site, question in questions_of(config, simulation).items():
        path = ledger_path(config, RunFolder(Path()), site)
        if not path.exists():
            continue
        policy = policy_of(config, simulation, site)
        events = events_of(config, simulation, question)
        try:
            with open_ledger(policy, path, create=False) as ledger:
                answered = question.trust == "none" and ledger.cached(question.sha256) is not None
                charges = ledger.entries()
                spent = ledger.spent(policy.delta)
        except LedgerError as error:
            raise ConfigError(f"ledger-dir={config.ledger_dir!r}: {error}") from error
        if answered:
            # Nothing is charged again but a new student's score, and a run does well without that.
            scored = any(each.description.get("mechanism") == EVALUATION for each in charges)
            events = [] if scored else events[question.rounds :]
        if events and not within_budget(
            [charge.event for charge in charges],
            ComposedDpEvent(events),
            budget_epsilon=policy.total_epsilon,
            delta=policy.delta,
            adjacency=policy.adjacency,
        ):
            raise ConfigError(
                f"{_asked(config)} must fit what {site} has left: {spent:.4g} of "
                f"budget-epsilon={policy.total_epsilon:g} is spent in {path}; raise "
                "budget-epsilon, or ask an answered question again, which costs nothing"
            )
