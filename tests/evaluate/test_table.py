import io

import pytest
from examples import with_federated
from rich.console import Console

from fedistill.evaluate import gains, wording
from fedistill.evaluate.summary import Privacy
from fedistill.evaluate.table import print_summary


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=80)


def _printed(summary, terminal, report):
    print_summary(summary, report=report, console=terminal)
    return terminal.file.getvalue()


def test_table_says_who_paid_what_and_what_each_scores(summary, terminal, tmp_path):
    text = _printed(summary, terminal, tmp_path / "report.html")
    assert max(map(len, text.splitlines())) <= 80
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["bank_c"] == ["bank_c", "1.000", "1.500", "0.500", "1e-5", "12.1", "KB"]
    assert wording.person_sentence(summary.privacy.person) in " ".join(text.split())
    assert "0.7621 ± 0.0091" in text
    assert "0.7681 ± 0.0091" in text
    assert "student.onnx (int8, 18.9 KB)" in text
    assert "report.html" in text.replace("\n", "")


def test_mechanisms_are_named_only_where_sites_differ(summary, terminal):
    assert "mechanism" not in _printed(summary, terminal, None)
    sites = summary.privacy.sites | {
        "bank_c": summary.privacy.sites["bank_c"].model_copy(update={"mechanism": "dp-ebm"})
    }
    mixed = summary.model_copy(update={"privacy": Privacy(noise="exact", sites=sites)})
    text = _printed(mixed, terminal, None)
    paid = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert paid["bank_a"][-1] == "dp-probe"
    assert paid["bank_c"][-1] == "dp-ebm"
    assert max(map(len, text.splitlines())) <= 80


def test_table_without_simulation_figures_shows_the_warning(one_site_left_out, terminal):
    text = _printed(one_site_left_out, terminal, None)
    assert "bank_b was left out" in text
    assert "teacher" not in text
    assert "central" not in text
    assert "report" not in text


def test_names_are_not_read_as_markup(summary, terminal):
    site = next(iter(summary.privacy.sites.values()))
    odd = summary.model_copy(
        update={"privacy": Privacy(noise="exact", sites={"[red]x[/red]": site})}
    )
    assert "[red]x[/red]" in _printed(odd, terminal, None)


def test_run_without_a_paying_site_still_prints(summary, terminal):
    none = summary.model_copy(update={"privacy": Privacy(noise="exact", sites={})})
    assert "No site paid anything." in _printed(none, terminal, None)


@pytest.mark.parametrize("width", [80, 100])
def test_long_site_names_are_cut_not_the_figures(summary, width):
    site = next(iter(summary.privacy.sites.values()))
    odd = summary.model_copy(update={"privacy": Privacy(noise="exact", sites={"h" * 90: site})})
    text = _printed(odd, Console(file=io.StringIO(), width=width), None)
    assert "1e-5" in text
    assert max(map(len, text.splitlines())) <= width


def test_table_says_who_gains_from_joining(five_sites, terminal):
    text = _printed(five_sites, terminal, None)
    assert max(map(len, text.splitlines())) <= 80
    section = text.split("Who gains from joining")[1].split("shipped ")[0]
    lines = {line.split()[0]: line for line in section.splitlines() if line.strip()}
    for name, site in list(five_sites.sites.items())[:4]:
        assert f"{site.rows:,}" in lines[name]
        assert gains.with_error(site.everyone.gain) in lines[name]
        assert gains.with_error(site.everyone.gain_private) in lines[name]
    assert "none" in lines["SVHD"]
    assert "is worse at one (other)" in " ".join(section.split())


def test_table_without_a_comparison_says_nothing_of_joining(summary, terminal):
    assert "joining" not in _printed(summary, terminal, None)


def test_long_site_names_leave_gains_and_scores_whole(five_sites, terminal):
    site = next(iter(five_sites.sites.values()))
    odd = five_sites.model_copy(update={"sites": {"h" * 90: site}})
    text = _printed(odd, terminal, None)
    assert gains.with_error(site.everyone.gain_private) in text
    assert wording.fraction(five_sites.metrics.ensemble.ece) in text
    assert max(map(len, text.splitlines())) <= 80


def test_scores_on_held_out_rows_stand_below_the_others(summary, terminal):
    assert "held out" not in _printed(summary, terminal, None)
    federated = with_federated(summary)
    found = federated.metrics.federated
    text = _printed(federated, terminal, None)
    assert (
        "On some 150 rows that two sites held out, by noised counts: AUC 0.800 ± "
        f"{found.auc_standard_error:.3f}, accuracy 0.800 ± 0.033."
    ) in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
