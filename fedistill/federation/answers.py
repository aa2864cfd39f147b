"""What the sites said, one by one or as a sum, ready to become a target."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedistill.federation import phases
from fedistill.federation.asking import Roster
from fedistill.federation.sealed_round import Ask, finished_round, sum_over_sites
from fedistill.labels import LabelRelease, LinearResponse
from fedistill.mechanisms import is_summed, mechanism_named, nothing_opened, summable
from fedistill.privacy.grid import LABEL_SCALE
from fedistill.site.sealing import SUMMED_GRID, bound_for, weights_sha256
from fedistill.summands import layout_of, mean_releases

if TYPE_CHECKING:
    from fedistill.federation.workflow import Run


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What goes into the target.

    Attributes:
        sites: Who is in it.
        releases: Their releases; under secure aggregation the mean of all in place of each, or one
            for all sites together.
        responses: The law of each of `releases`, in the same order.
        by_site: Each site's own release; empty where the server sees sums only.
    """

    sites: tuple[str, ...]
    releases: tuple[LabelRelease, ...]
    responses: tuple[LinearResponse, ...]
    by_site: Mapping[str, LabelRelease]


def sites_to_ask(this: "Run") -> Roster:
    """The sites, as they say hello; as they once did, where nobody need be asked anything more.

    A run that is gone on with has all answers, perhaps: then it does not wait for sites that have
    gone home.
    """
    if this.simulation is None and this.config.holdout_fraction == 0:
        questions = this.questions.values()
        last = max(each.rounds if is_summed(each) else 1 for each in questions)
        if this.config.secure_aggregation:
            finished = finished_round(this, last)
            answered = None if finished is None else finished.asked
        else:
            answered = phases.answered(this)
        if answered is not None:
            return Roster(dict.fromkeys(answered, 0))
    return phases.hello(this)


def ask_for_labels(this: "Run", roster: Roster) -> Answers:
    """Every site's noised labels on the proxy set, or their sum.

    Raises:
        TooFewSites: Fewer answered than `min-sites`, or than a sum needs.
    """
    if not this.config.secure_aggregation:
        with this.phase("labels"):
            releases = phases.labels(this, roster)
        return _answers(this, releases, by_site=releases)
    if any(is_summed(question) for question in this.questions.values()):
        return _rounds(this, roster)
    return _summed_labels(this, roster)


def _summed_labels(this: "Run", roster: Roster) -> Answers:
    """The sum of the sites' releases, taken as what each of them said on average."""
    proxy, asked = this.public.proxy, this.questions
    roster = _asked_before(this, roster, 1)
    layout = layout_of(
        len(proxy.rows),
        len(this.public.classes),
        {
            asked[site].mechanism: mechanism_named(asked[site].mechanism).parameters
            for site in roster.nodes
        },
    )
    ask = Ask(
        questions=asked,
        length=layout.length,
        bound=bound_for(len(roster.nodes)),
        grid=LABEL_SCALE,
        stated=layout.stated,
    )
    opened = sum_over_sites(this, roster, ask=ask)
    questions = {site: asked[site] for site in opened.sites}
    events = {
        site: mechanism_named(question.mechanism).plan(question, proxy, rows_at_least=0).event
        for site, question in questions.items()
    }
    return _answers(this, mean_releases(opened.total, layout, questions, events), by_site={})


def _rounds(this: "Run", roster: Roster) -> Answers:
    """Sums of the mechanism's own integers, round by round, which answer as one large site."""
    proxy, first = this.public.proxy, next(iter(this.questions.values()))
    mechanism = summable(first.mechanism)
    state = nothing_opened(first, proxy)
    for number in range(1, first.rounds + 1):
        asked = _asked_before(this, roster, number)
        weights = state.weights if number > 1 else None
        question = replace(first, round=number, broadcast_sha256=weights_sha256(weights))
        plan = mechanism.plan_sum(question, proxy, rows_at_least=0, num_sites=len(asked.nodes))
        ask = Ask(
            questions=dict.fromkeys(asked.nodes, question),
            length=plan.length,
            bound=plan.largest,
            grid=SUMMED_GRID,
            weights=weights,
        )
        opened = sum_over_sites(this, asked, ask=ask, round=number)
        state = mechanism.open_sum(
            opened.total, proxy, plan, num_sites=len(opened.sites), before=state
        )
        roster = roster.only(opened.sites)
    release, response = mechanism.answer_sum(state, proxy, plan)
    return Answers(sites=opened.sites, releases=(release,), responses=(response,), by_site={})


def _asked_before(this: "Run", roster: Roster, round: int) -> Roster:
    """The sites of `roster`, or of the round if it is finished, for whom its sum was scaled."""
    if (finished := finished_round(this, round)) is None:
        return roster
    return Roster({site: roster.nodes.get(site, 0) for site in finished.asked}, roster.identities)


def _answers(
    this: "Run", releases: Mapping[str, LabelRelease], by_site: Mapping[str, LabelRelease]
) -> Answers:
    proxy = this.public.proxy
    return Answers(
        sites=tuple(releases),
        releases=tuple(releases.values()),
        responses=tuple(
            mechanism_named(release.mechanism).response(this.questions[site], release, proxy)
            for site, release in releases.items()
        ),
        by_site=by_site,
    )
