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
PALE = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => rgba(colour).slice(0, 3)
    .map(part => part / 255)
    .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = element => {
    while (element && rgba(getComputedStyle(element).backgroundColor)[3] < 255)
      element = element.parentElement;
    return getComputedStyle(element || document.body).backgroundColor;
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const shown = element => element.getClientRects().length > 0;
  const words = [...document.body.querySelectorAll("*")].filter(element => shown(element)
    && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const marks = [...document.querySelectorAll(".mark, .interval, .bar .fill, .zero, .chance")]
    .filter(shown);
  const pale = (element, colour, least) => contrast(colour, ground(element)) < least
    ? [`${element.tagName} ${element.textContent.trim().slice(0, 40)} ${colour}`] : [];
  return [
    ...words.flatMap(element => pale(element, element.closest("svg")
      ? getComputedStyle(element).fill : getComputedStyle(element).color, 4.5)),
    ...marks.flatMap(element => pale(element, element.tagName === "rect"
      ? getComputedStyle(element).fill : getComputedStyle(element).stroke, 3)),
  ];
})()
"""
OUTSIDE = """
[...document.querySelectorAll("svg[role=img] :is(circle, path, line, polyline, text)")]
  .filter(shape => {
    const [box, frame] = [shape, shape.ownerSVGElement].map(each => each.getBoundingClientRect());
    return frame.width > 0 && (box.left < frame.left - 16 || box.right > frame.right + 16
      || box.top < frame.top - 4 || box.bottom > frame.bottom + 4);
  }).map(shape => shape.outerHTML)
"""
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def report(five_sites, receipts, tmp_path):
    write_report(five_sites, receipts, tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize(
    ("which", "drawings"), [("summary", 8), ("five_sites", 11), ("three_classes", 11)]
)
def test_report_is_drawn_whole(request, tab, receipts, tmp_path, which, drawings, width, scheme):
    path = tmp_path / "report.html"
    write_report(request.getfixturevalue(which), receipts, path)
    tab.open(path, width=width, scheme=scheme)
    drawn = tab.evaluate(DRAWINGS)
    assert len(drawn) == drawings
    assert all(drawing["width"] > 150 and drawing["height"] > 80 for drawing in drawn)
    assert all(drawing["width"] <= width - 28 for drawing in drawn)
    assert all(drawing["height"] < 1.5 * max(drawing["width"], 400) for drawing in drawn)
    assert ("auc-wide" in drawn[0]["label"]) == (width == 1280)
    assert tab.evaluate(COLLISIONS) == []
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(OVERFLOW) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_marks_stand_out_from_their_ground(tab, report, scheme):
    tab.open(report, width=1280, scheme=scheme)
    assert tab.evaluate(PALE) == []


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
