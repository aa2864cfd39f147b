"""Scores on the public test rows: of what ships, of what it came from, and of every site alone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fedistill.compress import Compression, predict_file
from fedistill.distill.target import Ensemble, build_ensemble
from fedistill.evaluate.calibration import calibration
from fedistill.evaluate.comparison import Comparison, SiteComparison, compare
from fedistill.evaluate.local import local_model
from fedistill.evaluate.metrics import Scores, class_scores, score
from fedistill.evaluate.reference import central_reference
from fedistill.evaluate.summary import Metrics
from fedistill.features import Expansion, proxy_basis
from fedistill.federation.answers import Answers
from fedistill.federation.simulation import Simulation, open_site
from fedistill.labels import Floats, LabelRelease, probabilities
from fedistill.mechanisms import is_summed, mechanism_named

if TYPE_CHECKING:
    from fedistill.federation.workflow import Run

MOST_SITES_COMPARED = 30


def score_all(
    this: "Run",
    ensemble: Ensemble,
    teachers: dict[str, LabelRelease],
    compressed: Compression,
) -> Metrics:
    """Score everything on the public test rows; the central reference is for simulations only."""
    this.progress.step("score", 0, 0, "test scores")
    test, classes = this.public.test, this.public.classes

    def scored(shares: Floats) -> Scores:
        return score(shares, test.labels)

    reference = None if this.simulation is None else _central(this.simulation)
    shipped = predict_file(compressed.shipped, test.rows)
    return Metrics(
        student=scored(shipped),
        student_fp32=scored(predict_file(compressed.fp32, test.rows)),
        ensemble=scored(probabilities(ensemble.label(test.rows))),
        teachers={
            site: scored(probabilities(release.log_odds)) for site, release in teachers.items()
        }
        if teachers or (not this.config.secure_aggregation and this.simulation is not None)
        else None,
        central_reference=None if reference is None else scored(reference),
        student_classes=dict(zip(classes, class_scores(shipped, test.labels), strict=True)),
        student_calibration=calibration(shipped, test.labels),
    )


def _central(simulation: Simulation) -> Floats:
    """Answers to the test rows of a model of all sites' rows, without privacy."""
    private = list(simulation.sites.values())
    return central_reference(
        np.concatenate([part.rows for part in private]),
        np.concatenate([part.labels for part in private]),
        simulation.test.rows,
        num_classes=len(simulation.classes),
        schema=simulation.proxy.schema,
    )


def compare_sites(
    this: "Run",
    ensemble: Ensemble,
    answers: Answers,
    compressed: Compression,
) -> dict[str, SiteComparison]:
    """What each site gains from joining: its own models against the shared student.

    For simulations only. A site's own private model is its release alone, denoised as the ensemble
    is, taken from the site's ledger where the server sees sums only; its own model without privacy
    is trained on its rows here.
    """
    simulation = this.simulation
    if simulation is None:
        return {}
    student = predict_file(compressed.shipped, simulation.test.rows)
    names = answers.sites[:MOST_SITES_COMPARED]
    if len(names) < len(answers.sites):
        this.warn(f"gains from joining are shown for {len(names)} of {len(answers.sites)} sites")
    # A sum that answers as one large site does not tell whose share is how large.
    each = len(answers.sites) == len(ensemble.site_shares)
    shares = dict(zip(answers.sites, ensemble.site_shares, strict=True)) if each else {}
    compared = {}
    for number, site in enumerate(names):
        this.progress.step("gains", number, len(names), f"{site} alone")
        models = {
            "local": _alone(simulation, site),
            "local_private": _alone_with_privacy(this, site, _own_release(this, site, answers)),
        }
        compared[site] = SiteComparison(
            rows=len(simulation.sites[site].rows),
            misfit_rows=simulation.misfits[site],
            weight=shares.get(site),
            everyone=compare(labels=simulation.test.labels, student=student, **models),
            own=_on_own_rows(simulation, site, models, student),
        )
    this.progress.step("gains", len(names), len(names), "compared")
    return compared


def _alone(simulation: Simulation, site: str) -> Floats:
    """The site's own model without privacy, on the test rows."""
    rows, expansion = simulation.sites[site], Expansion.of(simulation.proxy.schema)
    return local_model(
        expansion.transform(rows.rows),
        rows.labels,
        expansion.transform(simulation.test.rows),
        num_classes=rows.num_classes,
    )


def _own_release(this: "Run", site: str, answers: Answers) -> LabelRelease | None:
    """The site's own labels, as it has them itself; None where it sent integers to be summed."""
    if answers.by_site:
        return answers.by_site.get(site)
    if is_summed(this.questions[site]):
        return None
    with open_site(this.config, site, this.folder, this.name) as agent:
        return agent.stored(this.questions[site])


def _alone_with_privacy(this: "Run", site: str, release: LabelRelease | None) -> Floats | None:
    """The site's own release, denoised, on the test rows; None where it has none."""
    if release is None:
        return None
    proxy = this.public.proxy
    response = mechanism_named(release.mechanism).response(this.questions[site], release, proxy)
    alone = build_ensemble([release], [response], proxy_basis(proxy))
    return probabilities(alone.label(this.public.test.rows))


def _on_own_rows(
    simulation: Simulation, site: str, own_models: Mapping[str, Floats | None], student: Floats
) -> Comparison | None:
    """The comparison on those public test rows that the site column gives to this site."""
    whose = simulation.test_site
    if whose is None:
        return None
    own = np.array([name == site for name in whose])
    return compare(
        labels=simulation.test.labels[own],
        student=student[own],
        **{name: None if answers is None else answers[own] for name, answers in own_models.items()},
    )
