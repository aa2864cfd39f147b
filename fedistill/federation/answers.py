"""What the sites said, one by one or as a sum, ready to become a target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedistill.federation import phases
from fedistill.federation.asking import Roster
from fedistill.federation.sealed_round import sum_over_sites
from fedistill.labels import LabelRelease, LinearResponse
from fedistill.mechanisms import mechanism_named
from fedistill.privacy.grid import LABEL_SCALE
from fedistill.secagg import MODULUS
from fedistill.summands import Layout, layout_of, mean_releases

if TYPE_CHECKING:
    from fedistill.federation.workflow import Run


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What goes into the target.

    Attributes:
        sites: Who is in it.
        releases: Their releases, or under secure aggregation the mean of all in place of each.
        responses: The law of each of `releases`, in the same order.
        by_site: Each site's own release; empty where the server sees sums only.
    """

    sites: tuple[str, ...]
    releases: tuple[LabelRelease, ...]
    responses: tuple[LinearResponse, ...]
    by_site: Mapping[str, LabelRelease]


def ask_for_labels(this: "Run", roster: Roster) -> Answers:
    """Every site's noised labels on the proxy set, or their sum.

    Raises:
        TooFewSites: Fewer answered than `min-sites`, or than a sum needs.
    """
    if this.config.secure_aggregation:
        return _summed(this, roster)
    with this.phase("labels"):
        releases = phases.labels(this, roster)
    return _answers(this, releases, by_site=releases)


def _summed(this: "Run", roster: Roster) -> Answers:
    """The sum of the sites' releases, taken as what each of them said on average."""
    layout = _layout(this, roster)
    opened = sum_over_sites(
        this,
        roster,
        round=1,
        length=layout.length,
        bound=(MODULUS // 2 - 1) // len(roster.nodes),
        grid=LABEL_SCALE,
        stated=layout.stated,
    )
    questions = {site: this.questions[site] for site in opened.sites}
    proxy = this.simulation.proxy
    events = {
        site: mechanism_named(asked.mechanism).plan(asked, proxy, rows_at_least=0).event
        for site, asked in questions.items()
    }
    return _answers(this, mean_releases(opened.total, layout, questions, events), by_site={})


def _answers(
    this: "Run", releases: Mapping[str, LabelRelease], by_site: Mapping[str, LabelRelease]
) -> Answers:
    proxy = this.simulation.proxy
    return Answers(
        sites=tuple(releases),
        releases=tuple(releases.values()),
        responses=tuple(
            mechanism_named(release.mechanism).response(this.questions[site], release, proxy)
            for site, release in releases.items()
        ),
        by_site=by_site,
    )


def _layout(this: "Run", roster: Roster) -> Layout:
    asked = {this.questions[site].mechanism for site in roster.nodes}
    return layout_of(
        len(this.simulation.proxy.rows),
        len(this.simulation.table.classes),
        {name: mechanism_named(name).parameters for name in asked},
    )
