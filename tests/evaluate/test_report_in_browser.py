import pytest
from browser import browser_page, chromium

from fedistill.evaluate.report import write_report

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs Chromium, which is not installed")

DRAWINGS = """
[...document.querySelectorAll("svg[role=img]")].map(drawing => {
  const box = drawing.getBoundingClientRect();
  return {label: drawing.getAttribute("aria-labelledby"), width: box.width, height: box.height};
}).filter(drawing => drawing.width > 0)
"""
COLLISIONS = """
[...document.querySelectorAll("svg[role=img]")].flatMap(drawing => {
  const boxes = kind => [...drawing.querySelectorAll(kind)]
    .map(shape => [shape, shape.getBoundingClientRect()]);
  const [words, bars] = [boxes("text"), boxes("rect")];
  const meet = (a, b) => a.left + 1 < b.right && b.left + 1 < a.right
    && a.top + 3 < b.bottom && b.top + 3 < a.bottom;
  return words.flatMap(([word, box], place) => [...words.slice(place + 1), ...bars]
    .filter(([, other]) => box.width > 0 && meet(box, other))
    .map(([other]) => word.textContent + " / " + (other.textContent || "bar")));
})
"""
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def report(summary, receipts, tmp_path):
    write_report(summary, receipts, tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_report_is_drawn_whole(tab, report, width, scheme):
    tab.open(report, width=width, scheme=scheme)
    drawn = tab.evaluate(DRAWINGS)
    assert len(drawn) == 6
    assert all(drawing["width"] > 150 and drawing["height"] > 80 for drawing in drawn)
    assert ("auc-wide" in drawn[0]["label"]) == (width == 1280)
    assert tab.evaluate(COLLISIONS) == []
    assert tab.evaluate(OVERFLOW) <= 0


def test_report_asks_the_network_for_nothing_and_logs_nothing(tab, report):
    tab.open(report, width=1280, scheme="light")
    asked = [
        event["params"]["request"]["url"]
        for event in tab.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    logged = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    assert [event for event in tab.events if event["method"] in logged] == []


def test_dark_and_light_differ(tab, report):
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.open(report, width=1280, scheme="light")
    light = tab.evaluate(ground)
    tab.open(report, width=1280, scheme="dark")
    assert tab.evaluate(ground) != light
