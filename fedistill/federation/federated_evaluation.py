"""The phase `federated-evaluation`: the shipped student scored on rows that the sites held out.

In a sealed round where answers are summed, else site by site. Sites that fail are left out; where
too few remain the run goes on, for its student is made already, and says what is missing.
"""

import json
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import RecordDict

from fedistill.compress import predict_file
from fedistill.errors import DataError, PolicyRefusal, SecAggError, TooFewSites
from fedistill.evaluate.federated import FederatedScores, federated_scores
from fedistill.evaluate.files import write_atomically
from fedistill.federation.asking import Roster, exchange, require_sites
from fedistill.federation.countersigning import take_receipt
from fedistill.federation.evaluation_messages import STUDENT, read_counts, student_to_record
from fedistill.federation.messages import OK, read_answer, reason
from fedistill.federation.sealed_round import Ask, SealedSum, sum_over_sites
from fedistill.federation.simulation import evaluation_question
from fedistill.labels import Floats, LabelQuestion
from fedistill.mechanisms import SumPlan
from fedistill.mechanisms.evaluation import open_tables, plan_evaluation, score_edges
from fedistill.mechanisms.sent_student import student_sha256, student_to_bytes
from fedistill.site.sealing import SUMMED_GRID

if TYPE_CHECKING:
    from fedistill.compress import Compression
    from fedistill.federation.workflow import Run

PHASE = "federated-evaluation"


def evaluate_federated(
    this: "Run", roster: Roster, compression: "Compression"
) -> FederatedScores | None:
    """The shipped student's scores on held-out rows; None without any, or with too few sites."""
    if this.config.holdout_fraction == 0:
        return None
    shares = predict_file(compression.shipped, this.public.proxy.rows)
    edges = score_edges(shares)
    sent = student_to_bytes(compression.shipped.read_bytes(), edges)
    question = replace(
        evaluation_question(this.config, this.public),
        broadcast_sha256=student_sha256(sent),
        server_key=this.countersigner.key.public,
    )
    sealed = this.config.secure_aggregation
    together = len(roster.nodes) if sealed else 1
    try:
        plan = plan_evaluation(question, rows_at_least=0, num_sites=together)
        answered = (_sealed if sealed else _site_by_site)(this, roster, question, plan, sent)
    except (PolicyRefusal, SecAggError, TooFewSites) as error:
        this.warn(f"the student has no score on held-out rows: {error}")
        return None
    return _scores(this, answered, edges, plan)


def _sealed(
    this: "Run", roster: Roster, question: LabelQuestion, plan: SumPlan, sent: bytes
) -> SealedSum:
    ask = Ask(
        questions=dict.fromkeys(roster.nodes, question),
        length=plan.length,
        bound=plan.largest,
        grid=SUMMED_GRID,
        student=sent,
        phase=PHASE,
    )
    return sum_over_sites(this, roster, ask=ask, round=question.round)


def _site_by_site(
    this: "Run", roster: Roster, question: LabelQuestion, plan: SumPlan, sent: bytes
) -> SealedSum:
    done = this.folder.checkpoint(f"{PHASE}.json")
    with this.phase(PHASE):
        if not done.is_file():
            counts = _ask(this, roster, question, plan, sent)
            index = {"sites": counts, "wire": asdict(this.wire)}
            write_atomically(done, json.dumps(index))
        stored = json.loads(done.read_text())
        for direction, sizes in stored["wire"].items():
            getattr(this.wire, direction).update(sizes)
    tables = np.array(list(stored["sites"].values()), np.int64)
    sites = tuple(stored["sites"])
    return SealedSum(asked=sites, sites=sites, total=tables.sum(axis=0))


def _ask(
    this: "Run", roster: Roster, question: LabelQuestion, plan: SumPlan, sent: bytes
) -> dict[str, list[int]]:
    """The counts of every site that answered.

    Raises:
        TooFewSites: Fewer did than `min-sites`.
    """
    replies = exchange(
        this.grid,
        roster,
        STUDENT,
        {site: student_to_record(site, question, sent) for site in roster.nodes},
        timeout=this.config.phase_timeout,
        up=this.wire.up,
        down=this.wire.down,
        on_progress=partial(this.progress.step, PHASE),
    )
    counts, reasons = {}, []
    for site in roster.nodes:
        found = _counts(site, replies.get(site), plan)
        if isinstance(found, list):
            counts[site] = found
            answer, identity = read_answer(replies[site]), roster.identities.get(site, b"")
            take_receipt(this, site, question, identity, answer.release, answer.statement)
        else:
            reasons.append(f"{site} {reason(found)}")
            this.warn(f"{reasons[-1]} in phase {PHASE}: the run goes on without it")
    require_sites(len(counts), len(roster.nodes), this.config.min_sites, reasons)
    return counts


def _counts(site: str, reply: RecordDict | None, plan: SumPlan) -> list[int] | str:
    """The counts in a site's reply, or the public class of why there are none."""
    if reply is None:
        return "no-answer"
    answer = read_answer(reply)
    if answer.status != OK:
        return answer.status
    try:
        counts = read_counts(answer.release, length=plan.length, largest=plan.largest)
    except DataError:
        return "malformed"
    # Whoever answers for another site is not believed.
    return counts.tolist() if answer.site == site else "malformed"


def _scores(this: "Run", answered: SealedSum, edges: Floats, plan: SumPlan) -> FederatedScores:
    tables = open_tables(answered.total, edges, plan, num_sites=len(answered.sites))
    return federated_scores(
        tables.confusion,
        tables.scores,
        confusion_std=tables.confusion_std,
        score_std=tables.score_std,
        classes=this.public.classes,
        sites=answered.sites,
    )
