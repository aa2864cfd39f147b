import re
from html.parser import HTMLParser

import pytest
from examples import with_federated
from pydantic import ValidationError

from fedistill.evaluate import gains, wording
from fedistill.evaluate.report import render_report, write_report
from fedistill.evaluate.summary import Views

HOSTILE = "<script>alert(1)</script>\"'&"


class _Elements(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(summary, receipts):
    return _Elements(render_report(summary, receipts))


def test_report_needs_nothing_but_itself(page, summary, receipts):
    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object", "embed"}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "data:,").startswith("data:")
    html = render_report(summary, receipts)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_report_forbids_the_browser_to_fetch_or_run_anything(page):
    policies = [
        attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_score_cost_size_and_time_of_the_summary_is_in_the_text(page, summary, receipts):
    for _, name, scores in wording.score_rows(summary):
        assert name in page.text
        for figure in (scores.auc, scores.accuracy, scores.log_loss, scores.ece):
            assert wording.fraction(figure) in page.text
    for name, site in summary.privacy.sites.items():
        shown = (site.epsilon, site.total_epsilon, site.remaining_epsilon)
        row = f"{name} {shown[0]:.3f} {shown[1]:.3f}"
        assert name in page.text
        assert wording.spent(site.total_epsilon) in page.text, row
        assert wording.left(site.remaining_epsilon) in page.text, row
    for wire in summary.wire.sites.values():
        for count in (wire.bytes_up, wire.bytes_down, wire.bytes_evaluation):
            assert f"{count:,}" in page.text
    for stage in summary.compression:
        assert f"{stage.bytes:,}" in page.text
        assert f"{stage.parameters:,}" in page.text
        assert wording.three_digits(stage.latency_ms_batch_1) in page.text
        assert wording.three_digits(stage.latency_ms_batch_256) in page.text
        assert wording.fraction(stage.agreement) in page.text
        assert wording.fraction(stage.metric) in page.text
    for phase, took in summary.timings.items():
        assert phase in page.text
        assert wording.seconds(took) in page.text
    for key in (*summary.config, *summary.versions, *summary.versions.values()):
        assert key in page.text
    assert summary.guarantee in page.text
    assert wording.person_sentence(summary.privacy.person) in page.text
    assert "exact discrete Gaussian, no floating-point noise" in page.text
    assert "Shipped the pruned+quantized file" in page.text


def test_receipts_are_told_in_words(page, receipts):
    assert (
        "On 23 November 2026 at 22:45:52 UTC, bank_c sent 6,000 labels of dp-probe as 16-bit "
        "integers (12.1 KB) about the population “bank_c/customers”, at a cost of epsilon 1.000 "
        "(delta 1e-5, record level, add-remove adjacency); of its budget of epsilon 2.000, 1.500 "
        "is now spent and 0.500 left." in page.text
    )
    for receipt in receipts:
        assert receipt["sha256"] in page.text


def test_cached_answer_is_told_as_free(summary, receipts):
    cached = receipts[0] | {"cached": True, "epsilon": 0.0}
    text = _Elements(render_report(summary, [cached])).text
    assert "again and at no cost, because it had been paid for before (delta 1e-5" in text


@pytest.mark.parametrize(("which", "drawn"), [("summary", 9), ("five_sites", 14)])
def test_figures_have_a_title_a_description_and_a_unique_name(request, receipts, which, drawn):
    page = _Elements(render_report(request.getfixturevalue(which), receipts))
    drawings = [attributes for tag, attributes in page.tags if attributes.get("role") == "img"]
    named = [name for drawing in drawings for name in drawing["aria-labelledby"].split()]
    known = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(drawings) == drawn
    assert len(named) == 2 * drawn
    assert len(known) == len(set(known))
    assert set(named) <= set(known)


@pytest.mark.parametrize("which", ["five_sites", "three_classes"])
def test_every_gain_class_and_bin_is_in_the_text(request, which):
    summary = request.getfixturevalue(which)
    text = _Elements(render_report(summary, [])).text
    for site in summary.sites.values():
        assert f"{site.rows:,}" in text
        for comparison in (site.everyone, site.own):
            for gain in (comparison.gain, comparison.gain_private):
                assert f"{gains.with_error(gain)} {gains.verdict(gain)}".replace(" ", "") in (
                    text.replace(" ", "")
                )
            assert wording.fraction(comparison.local.auc, 3) in text
            assert wording.fraction(comparison.local_private.auc, 3) in text
    for name, scores in summary.metrics.student_classes.items():
        assert name in text
        for figure in (scores.recall, scores.precision, scores.auprc):
            assert wording.fraction(figure, 3) in text
    for each in summary.metrics.student_calibration:
        assert f"{each.low:.3f} to {each.high:.3f}" in text
    everyone = {name: site.everyone for name, site in summary.sites.items()}
    for sentence in gains.sentences(everyone):
        assert sentence in text
    assert "SVI3 rows are fewer than rows-at-least=20." in text.replace("SVI ", "SVI")


def _without(summary, name):
    parts = {
        "sites": ({}, "Who gains from joining"),
        "own": ({key: _not_own(site) for key, site in summary.sites.items()}, "rows of each site"),
        "left_out": ({}, "Sites that take no part"),
        "warnings": ((), "Before you rely on this"),
        "compression": ((), "Quality and file size"),
        "timings": ({}, "Where the "),
        "config": ({}, "Run config"),
        "versions": ({}, "Versions"),
        "student_calibration": ((), "mean predicted probability"),
        "student_classes": ({}, "Class by class"),
    }
    empty, gone = parts[name]
    if name.startswith("student"):
        metrics = summary.metrics.model_copy(update={name: empty})
        return summary.model_copy(update={"metrics": metrics}), gone
    return summary.model_copy(update={"sites" if name == "own" else name: empty}), gone


def _not_own(site):
    return site.model_copy(update={"own": None})


@pytest.mark.parametrize(
    "name",
    [
        "sites", "own", "left_out", "warnings", "compression", "timings", "config", "versions",
        "student_calibration", "student_classes",
    ],
)  # fmt: skip
def test_report_leaves_out_a_part_that_is_missing_and_nothing_else(five_sites, receipts, name):
    whole = _Elements(render_report(five_sites, receipts)).text
    without, gone = _without(five_sites, name)
    text = _Elements(render_report(without, receipts)).text
    assert gone in whole
    assert gone not in text
    assert "What it cost in privacy" in text
    assert "None" not in text


def test_report_without_any_optional_part_has_no_empty_section(summary):
    bare = summary.model_copy(update={"timings": {}, "config": {}, "versions": {}})
    text = _Elements(render_report(bare, [])).text
    for heading in ("Who gains", "What its probabilities are worth", "Sites that take no part"):
        assert heading not in text


def test_hostile_names_of_sites_and_classes_stay_text(five_sites):
    site = next(iter(five_sites.sites.values()))
    scores = next(iter(five_sites.metrics.student_classes.values()))
    hostile = five_sites.model_copy(
        update={
            "sites": {HOSTILE: site},
            "left_out": {HOSTILE: HOSTILE},
            "split": five_sites.split.model_copy(update={"classes": ("a", HOSTILE)}),
            "metrics": five_sites.metrics.model_copy(update={"student_classes": {HOSTILE: scores}}),
        }
    )
    html = render_report(hostile, [])
    assert "<script" not in html
    assert _Elements(html).text.count(HOSTILE) >= 6


def test_hostile_names_stay_text(summary, receipts):
    sites = {HOSTILE: next(iter(summary.privacy.sites.values()))}
    wire = {HOSTILE: next(iter(summary.wire.sites.values()))}
    metrics = summary.metrics.model_copy(update={"teachers": {HOSTILE: summary.metrics.student}})
    hostile = summary.model_copy(
        update={
            "run_id": HOSTILE,
            "dataset": HOSTILE,
            "metrics": metrics,
            "privacy": summary.privacy.model_copy(update={"sites": sites}),
            "wire": summary.wire.model_copy(update={"sites": wire}),
            "warnings": (HOSTILE,),
            "config": {HOSTILE: HOSTILE},
            "guarantee": HOSTILE,
            "timings": {HOSTILE: 1.0},
        }
    )
    html = render_report(hostile, [receipts[0] | {"site": HOSTILE, "what": HOSTILE}])
    assert "<script" not in html
    assert HOSTILE in _Elements(html).text


def test_deployment_without_simulation_figures_is_reported_with_its_warning(one_site_left_out):
    text = _Elements(render_report(one_site_left_out, [])).text
    assert "bank_b was left out: no answer within 600 s" in text
    assert "teacher bank" not in text
    assert "central, not private" not in text
    assert "simulation, where one machine" not in text
    assert "No receipts were written." in text


def test_two_views_are_shown_when_they_differ(summary, page):
    assert "If all others pool" not in page.text
    site = next(iter(summary.privacy.sites.values()))
    weaker = site.model_copy(update={"views": Views(everyone=3.25, server=1.0)})
    privacy = summary.privacy.model_copy(update={"sites": {"bank_a": weaker}})
    text = _Elements(render_report(summary.model_copy(update={"privacy": privacy}), [])).text
    assert "If all others pool" in text
    assert "3.250" in text


def test_more_than_two_classes_name_the_average(summary):
    split = summary.split.model_copy(update={"classes": ("a", "b", "c")})
    text = _Elements(render_report(summary.model_copy(update={"split": split}), [])).text
    assert "AUC (macro one-vs-rest)" in text


def test_receipt_without_a_hash_is_refused_before_anything_is_written(summary, receipts, tmp_path):
    del receipts[0]["sha256"]
    with pytest.raises(ValidationError, match="sha256"):
        write_report(summary, receipts, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_scores_on_held_out_rows_show_their_errors_and_who_is_in_them(summary, receipts):
    assert "held out" not in _Elements(render_report(summary, receipts)).text
    federated = with_federated(summary, ((80, 20), (-3, 4)))
    text = _Elements(render_report(federated, receipts)).text
    assert wording.federated_sentence(federated.metrics.federated, federated) in text
    assert "bank_a, bank_b took part" in text
    for shown in ("0.800 ± 0.040", "-3", "Taken for default"):
        assert shown in text.replace("\xa0", " ")
