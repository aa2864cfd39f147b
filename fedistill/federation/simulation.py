"""A federation on one machine: one data set, cut into public rows and simulated sites.

Here one person holds all rows, so the server may read them for references and checks. A deployed
server has a `Deployment` in its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from fedistill.config import RunConfig
from fedistill.config_rules import SELF_SUPERVISED
from fedistill.data import (
    LabelledRows,
    ProxySet,
    Table,
    load_table,
    misfits_in_words,
    partition_rows,
    register_rows,
    split_table,
)
from fedistill.data.encoder import Encoder
from fedistill.data.split import Split
from fedistill.errors import DataError
from fedistill.federation.own_encoder import Progress, own_encoder
from fedistill.federation.public import Public
from fedistill.federation.run_folder import (
    RunFolder,
    countersign_dir,
    ledger_path,
)
from fedistill.labels import EVALUATION, LabelQuestion
from fedistill.mechanisms import Mechanism, mechanism_named
from fedistill.privacy.accountant import SPLIT_MARGIN, calibrate_rho, epsilon_of
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.countersign import SERVER_PUBLIC_KEY
from fedistill.privacy.ledger_key import create_key, key_path, load_key
from fedistill.site import Evaluation, FloatNoise, LocalAgent, Policy, Sealing, Trust

ROWS_AT_LEAST = 20
"""What every simulated site declares in public about its number of rows, or of units."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """All rows of a simulated federation.

    Attributes:
        table: What was read.
        proxy: Public rows without labels.
        test: Public rows that only score.
        test_site: (num_test,) whose row it is, or None without a site column.
        sites: Private rows of the sites that take part, registered.
        left_out: Sites that take no part, and why.
        misfits: How many rows of a site do not fit the proxy set's schema.
        notes: What each site's owner must know of its rows, for its own log.
    """

    table: Table
    proxy: ProxySet
    test: LabelledRows
    test_site: tuple[str, ...] | None
    sites: Mapping[str, LabelledRows]
    left_out: Mapping[str, str]
    misfits: Mapping[str, int]
    notes: Mapping[str, str]

    @property
    def name(self) -> str:
        """What the data set is called."""
        return self.table.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        return self.table.classes

    @property
    def site_names(self) -> tuple[str, ...]:
        """The sites that take part, in a fixed order."""
        return tuple(self.sites)

    @property
    def test_rows(self) -> ProxySet:
        """The test rows without their labels, as a site sees them."""
        return ProxySet(schema=self.proxy.schema, rows=self.test.rows)


def question_of(config: RunConfig, public: Public, site: str = "") -> LabelQuestion:
    """What the server asks of a site; "" is any that `site-mechanisms` does not name."""
    mechanism, teacher = config.mechanism_of(site)
    return LabelQuestion(
        mechanism=mechanism,
        epsilon=config.epsilon,
        delta=config.delta,
        solver=config.solver,
        probe_steps=config.probe_steps,
        num_classes=len(public.classes),
        proxy_sha256=public.proxy.sha256,
        teacher=teacher,
        shards=config.shards,
        queries=config.queries,
        answers=config.answers,
        confidence=config.confidence,
        answers_at_most=config.answers_at_most,
        cells=config.cells,
        partitions=config.partitions,
        clip_norm=config.clip_norm,
        sgd_steps=config.sgd_steps,
        sgd_sampling_rate=config.sgd_sampling_rate,
        sgd_clip=config.sgd_clip,
        sgd_learning_rate=config.sgd_learning_rate,
        trust=config.trust,
        min_honest_sites=config.min_honest_sites if config.trust == "secagg" else 1,
        rounds=config.num_rounds,
        holdout_fraction=config.holdout_fraction,
    )


def questions_of(config: RunConfig, public: Public) -> dict[str, LabelQuestion]:
    """What the server asks, by site."""
    return {site: question_of(config, public, site) for site in public.site_names}


def evaluation_question(config: RunConfig, public: Public) -> LabelQuestion:
    """What the server asks of every site, but for the student's hash."""
    asked = question_of(config, public)
    return LabelQuestion(
        mechanism=EVALUATION,
        epsilon=config.evaluation_epsilon,
        delta=asked.delta,
        num_classes=asked.num_classes,
        proxy_sha256=asked.proxy_sha256,
        trust=asked.trust,
        min_honest_sites=asked.min_honest_sites,
        round=asked.rounds + 1,  # a sum of its own, after those of the labels
        rounds=asked.rounds + 1,
        holdout_fraction=asked.holdout_fraction,
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
        key = _server_key(config, folder)
        policy_of(config, simulation, site, server_key=key).save(policy_path)
    return LocalAgent(
        run=run,
        policy=Policy.load(policy_path),
        rows=simulation.sites[site],
        proxy=simulation.proxy,
        ledger_path=ledger_path(config, folder, site),
        receipts_path=folder.receipts,
    )


def write_policies(config: RunConfig, simulation: Simulation, folder: RunFolder) -> None:
    """Make every simulated site's key and policy, each of which pins the keys of the others.

    Sites compare their keys out of band; here one person runs all of them.

    Raises:
        LedgerError: A key cannot be written.
        OSError: A policy cannot be.
    """
    peers: dict[str, str] = {}
    for site in simulation.sites:
        key = key_path(ledger_path(config, folder, site))
        create_key(key)
        peers[site] = load_key(key).public
    server_key = _server_key(config, folder)
    for site in simulation.sites:
        path = folder.site(site) / "policy.toml"
        if not path.exists():
            others = {name: key for name, key in peers.items() if name != site}
            policy_of(config, simulation, site, peers=others, server_key=server_key).save(path)


def _server_key(config: RunConfig, folder: RunFolder) -> str:
    """The public key (hex) that the server of a simulation left for its sites; "" without a run."""
    path = countersign_dir(config, folder) / SERVER_PUBLIC_KEY
    return path.read_text().strip() if path.is_file() else ""


def public_identity(config: RunConfig, folder: RunFolder, site: str) -> bytes:
    """Raw public key by which a simulated site signs; none without secure aggregation."""
    if not config.secure_aggregation:
        return b""
    return bytes.fromhex(load_key(key_path(ledger_path(config, folder, site))).public)


def prepare_data(config: RunConfig, progress: Progress | None = None) -> Simulation:
    """Load, split and register. What can be checked besides is in `up_front`.

    `progress` is told of the epochs of an encoder that this run trains itself.
    """
    source = (
        config.dataset,
        config.label_column,
        config.site_column,
        config.unit_column,
        config.ignored,
        config.proxy_fraction,
        config.test_fraction,
    )
    encoder = config.encoder
    if encoder == SELF_SUPERVISED:
        _, split = _tables(*source)
        encoder = str(own_encoder(split.proxy, config.encoder_epochs, progress))
    return _simulation(source, encoder, config.partition, config.sites)


@lru_cache(maxsize=1)
def _tables(
    dataset: str,
    label_column: str,
    site_column: str,
    unit_column: str,
    ignored: tuple[str, ...],
    proxy_fraction: float,
    test_fraction: float,
) -> tuple[Table, Split]:
    table = load_table(
        dataset,
        label_column=label_column,
        site_column=site_column,
        unit_column=unit_column,
        ignore_columns=ignored,
    )
    return table, split_table(table, proxy_fraction=proxy_fraction, test_fraction=test_fraction)


@lru_cache(maxsize=1)
def _simulation(
    source: tuple[Any, ...], encoder: str, partition: str, names: tuple[str, ...]
) -> Simulation:
    table, split = _tables(*source)
    proxy = replace(split.proxy, encoder=Encoder.named(encoder))
    parts = partition_rows(split.private, partition, names, site_of_row=split.private_site)
    fitting = {site: int((rows.labels >= 0).sum()) for site, rows in parts.items()}
    bounded = {
        site: rows.take(np.flatnonzero(rows.labels >= 0)).num_units for site, rows in parts.items()
    }
    eligible = [site for site in parts if bounded[site] >= ROWS_AT_LEAST]
    return Simulation(
        table=table,
        proxy=proxy,
        test=split.test,
        test_site=split.test_site,
        sites={
            site: register_rows(
                parts[site],
                proxy,
                num_classes=len(table.classes),
                rows_at_least=ROWS_AT_LEAST,
                site=site,
            )
            for site in eligible
        },
        left_out={
            site: f"it has {bounded[site]} of the {ROWS_AT_LEAST} "
            f"{'units' if table.units is not None else 'rows'} that rows-at-least asks for"
            for site in parts
            if site not in eligible
        },
        misfits={site: len(rows.rows) - fitting[site] for site, rows in parts.items()},
        notes={site: words for site in parts if (words := misfits_in_words(parts[site]))},
    )


def policy_of(
    config: RunConfig,
    simulation: Simulation,
    site: str,
    peers: Mapping[str, str] | None = None,
    server_key: str = "",
) -> Policy:
    """What a simulated site allows: what the run config asks for, and no more.

    `peers` are the public keys (hex) of the other sites, which sealed rounds need, `server_key` is
    that by which the server countersigns receipts.
    """
    return Policy(
        site=site,
        population=_population(config, simulation, site),
        rows_at_least=ROWS_AT_LEAST,
        unit=unit_of(config, mechanism_named(config.mechanism_of(site)[0])),
        total_epsilon=config.budget,
        epsilon_per_release=max(config.epsilon, config.epsilon_held_out),
        delta=config.delta,
        mechanisms=(config.mechanism_of(site)[0],),
        teachers=(config.mechanism_of(site)[1],),
        sgd_steps_at_most=config.sgd_steps,
        float_noise=FloatNoise(config.float_noise),
        encoders=("", simulation.proxy.encoder.import_path) if simulation.proxy.encoder else ("",),
        proxy_sha256=(simulation.proxy.sha256,),
        evaluation=Evaluation.ALLOW if config.holdout_fraction > 0 else Evaluation.REFUSE,
        holdout_fraction=config.holdout_fraction,
        secure_aggregation=Sealing.REQUIRED if config.secure_aggregation else Sealing.OPTIONAL,
        min_honest_sites=config.min_honest_sites,
        trust=Trust(config.trust),
        total_epsilon_alone=_budget_alone(config),
        colluding_sites=config.colluding_sites,
        server_key=server_key,
        peers=peers or {},
    )


def _budget_alone(config: RunConfig) -> float | None:
    """What a budget's releases cost if all other sites collude; None where each has its own noise.

    Of the noise that hides a release, a site makes one part in `min-honest-sites`.
    """
    if config.trust == "none":
        return None
    from dp_accounting import ZCDpEvent

    rho = calibrate_rho(config.budget, config.delta)
    alone = ZCDpEvent(config.min_honest_sites * rho * (1 + SPLIT_MARGIN))
    return epsilon_of(alone, config.delta, Adjacency.ADD_REMOVE)


def _population(config: RunConfig, simulation: Simulation, site: str) -> str:
    """Whom a simulated site's rows are about: all that decides which rows are its own."""
    return (
        f"{simulation.table.name}, label {config.label_column or 'of the set'}, "
        f"proxy {config.proxy_fraction:g}, test {config.test_fraction:g}, "
        f"{config.site_column or config.partition}: {site} of "
        f"{len(simulation.sites) + len(simulation.left_out)}"
        + (f", units {config.unit_column}" if config.unit_column else "")
    )


def unit_of(config: RunConfig, mechanism: Mechanism) -> Unit:
    """Whom a simulated site's policy protects: groups where a column names them, else records."""
    if config.unit_column:
        return Unit.GROUP
    return Unit.SITE if mechanism.units == (Unit.SITE,) else Unit.RECORD
