"""A federation on one machine: one data set, cut into public rows and simulated sites.

Here one person holds all rows, so the server may read them for references and checks. A
deployed server never imports this module's `Simulation`.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fedistill.config import RunConfig
from fedistill.data import (
    LabelledRows,
    ProxySet,
    Table,
    load_table,
    partition_rows,
    register_rows,
    split_table,
)
from fedistill.errors import ConfigError, DataError, LedgerError
from fedistill.federation.run_folder import (
    RunFolder,
    check_run_folder,
    check_writable,
    ledger_path,
)
from fedistill.labels import LabelQuestion
from fedistill.mechanisms import mechanism_named
from fedistill.privacy.accountant import within_budget
from fedistill.site import LocalAgent, Policy, open_ledger

ROWS_AT_LEAST = 20
"""What every simulated site declares in public about its number of rows."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """All rows of a simulated federation.

    Attributes:
        table: What was read.
        proxy: Public rows without labels.
        test: Public rows that only score.
        sites: Private rows by site, registered.
    """

    table: Table
    proxy: ProxySet
    test: LabelledRows
    sites: dict[str, LabelledRows]

    @property
    def site_names(self) -> tuple[str, ...]:
        """All sites, in a fixed order."""
        return tuple(self.sites)

    @property
    def test_rows(self) -> ProxySet:
        """The test rows without their labels, as a site sees them."""
        return ProxySet(columns=self.test.columns, rows=self.test.rows)

    def describe(self) -> str:
        """What was read, in a few lines for the person who runs the simulation."""
        sizes = ", ".join(f"{name} {len(part.rows):,}" for name, part in self.sites.items())
        return (
            f"{self.table.name}: {len(self.table.rows):,} rows, {len(self.table.columns)} columns, "
            f"{len(self.table.classes)} classes\n"
            f"public: {len(self.proxy.rows):,} proxy rows without labels "
            f"(sha256 {self.proxy.sha256[:12]}), {len(self.test.rows):,} test rows\n"
            f"private: {sizes} rows\n"
            "policies: written for the sites from the run config; a real site writes its own"
        )


def prepare(config: RunConfig) -> Simulation:
    """Load, split and register, and check what can be checked before a run starts.

    Raises:
        BadInput: Names field, value and bound. Nothing was charged.
    """
    simulation = prepare_data(config)
    if config.min_sites > len(simulation.sites):
        raise ConfigError(
            f"min-sites={config.min_sites} must be at most the number of sites, "
            f"{len(simulation.sites)}: lower min-sites"
        )
    if config.output_dir:
        check_run_folder(Path(config.output_dir), config)
    if config.ledger_dir:
        check_writable("ledger-dir", Path(config.ledger_dir))
        _check_budgets(config, simulation)
    return simulation


def question_of(config: RunConfig, simulation: Simulation) -> LabelQuestion:
    """What the server asks of every site."""
    return LabelQuestion(
        mechanism=config.mechanism,
        epsilon=config.epsilon,
        delta=config.delta,
        probe_steps=config.probe_steps,
        num_classes=len(simulation.table.classes),
        proxy_sha256=simulation.proxy.sha256,
    )


def open_site(config: RunConfig, site: str, folder: RunFolder, run: str) -> LocalAgent:
    """The agent of a simulated site, with the policy that the run config implies.

    Raises:
        DataError: There is no such site.
    """
    simulation = prepare_data(config)
    if site not in simulation.sites:
        raise DataError(f"site={site!r} must be one of {', '.join(simulation.sites)}")
    policy_path = folder.site(site) / "policy.toml"
    if not policy_path.exists():
        _policy(config, simulation, site).save(policy_path)
    return LocalAgent(
        run=run,
        policy=Policy.load(policy_path),
        rows=simulation.sites[site],
        proxy=simulation.proxy,
        ledger_path=ledger_path(config, folder, site),
        receipts_path=folder.receipts,
    )


def prepare_data(config: RunConfig) -> Simulation:
    """`prepare` without its checks of folders and budgets."""
    return _simulation(
        config.dataset,
        config.label_column,
        config.site_column,
        config.partition,
        config.sites,
        config.proxy_fraction,
        config.test_fraction,
    )


@lru_cache(maxsize=1)
def _simulation(
    dataset: str,
    label_column: str,
    site_column: str,
    partition: str,
    names: tuple[str, ...],
    proxy_fraction: float,
    test_fraction: float,
) -> Simulation:
    table = load_table(dataset, label_column=label_column, site_column=site_column)
    split = split_table(table, proxy_fraction=proxy_fraction, test_fraction=test_fraction)
    parts = partition_rows(split.private, partition, names, site_of_row=split.private_site)
    registered = {
        site: register_rows(
            rows,
            split.proxy,
            num_classes=len(table.classes),
            rows_at_least=ROWS_AT_LEAST,
            site=site,
        )
        for site, rows in parts.items()
    }
    return Simulation(table=table, proxy=split.proxy, test=split.test, sites=registered)


def _policy(config: RunConfig, simulation: Simulation, site: str) -> Policy:
    return Policy(
        site=site,
        population=_population(config, simulation, site),
        rows_at_least=ROWS_AT_LEAST,
        total_epsilon=config.budget,
        epsilon_per_release=config.epsilon,
        delta=config.delta,
        mechanisms=(config.mechanism,),
        proxy_sha256=(simulation.proxy.sha256,),
    )


def _population(config: RunConfig, simulation: Simulation, site: str) -> str:
    """Whom a simulated site's rows are about: all that decides which rows are its own."""
    return (
        f"{simulation.table.name}, label {config.label_column or 'of the set'}, "
        f"proxy {config.proxy_fraction:g}, test {config.test_fraction:g}, "
        f"{config.site_column or config.partition}: {site} of {len(simulation.sites)}"
    )


def _check_budgets(config: RunConfig, simulation: Simulation) -> None:
    """Refuse a question that a persistent ledger would refuse anyway, in the owner's own words."""
    question = question_of(config, simulation)
    mechanism = mechanism_named(config.mechanism)
    plan = mechanism.plan(question, simulation.proxy, rows_at_least=ROWS_AT_LEAST)
    for site in simulation.sites:
        path = ledger_path(config, RunFolder(Path()), site)
        if not path.exists():
            continue
        policy = _policy(config, simulation, site)
        try:
            with open_ledger(policy, path, create=False) as ledger:
                answered = ledger.cached(question.sha256) is not None
                past = [charge.event for charge in ledger.entries()]
                spent = ledger.spent(policy.delta)
        except LedgerError as error:
            raise ConfigError(f"ledger-dir={config.ledger_dir!r}: {error}") from error
        if not answered and not within_budget(
            past,
            plan.event,
            budget_epsilon=policy.total_epsilon,
            delta=policy.delta,
            adjacency=policy.adjacency,
        ):
            raise ConfigError(
                f"epsilon={config.epsilon} must fit what {site} has left: {spent:.4g} of "
                f"budget-epsilon={policy.total_epsilon:g} is spent in {path}; raise "
                "budget-epsilon, or ask an answered question again, which costs nothing"
            )
