"""The benchmark on digits: its split, what it measures, and that a small run holds together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import digits, digits_students
from benchmarks.digits import Settings, embedded, make_encoder, read_digits
from benchmarks.digits_answers import ALONE, Way, answer
from benchmarks.digits_students import measure
from benchmarks.mnist_pate import MECHANISMS, alike, shown, ways


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Images of MNIST's counts and shape, a hundred of each part."""
    folder = tmp_path_factory.mktemp("mnist")
    random = np.random.default_rng(0)
    labels = {"y_train": 60_000, "y_test": 10_000}
    drawn = {name: random.integers(0, 10, count) for name, count in labels.items()}
    images = {
        name.replace("y", "x"): np.broadcast_to(
            (25 * each[:, None, None]).astype(np.uint8), (len(each), 28, 28)
        )
        for name, each in drawn.items()
    }
    images = {name: each.copy() for name, each in images.items()}
    for each in images.values():
        each[:, :, :14] = 0
    np.savez(folder / "mnist.npz", **images, **drawn)
    return Settings(
        file=folder / "mnist.npz",
        encoders=folder,
        epochs=1,
        student_epochs=1,
        honest=2,
        device="cpu",
        limit=100,
    )


def test_the_split_is_that_of_pate_and_no_image_is_in_two_parts(settings: Settings) -> None:
    whole = read_digits(settings.file, 10**9)
    assert len(whole.public) == len(whole.public_labels) == 9_000
    assert [len(rows) for rows, _ in whole.sites] == [20_000] * 3
    assert len(whole.scored[0]) == 1_000
    with np.load(settings.file) as archive:
        np.testing.assert_array_equal(whole.scored[1], archive["y_test"][9_000:])
        held = np.concatenate([labels for _, labels in whole.sites])
        np.testing.assert_array_equal(np.bincount(held), np.bincount(archive["y_train"]))


def test_a_small_run_measures_shares(settings: Settings) -> None:
    make_encoder(0, settings)
    written = (settings.encoders / "encoder-0.pt").read_bytes()
    make_encoder(0, settings)
    assert (settings.encoders / "encoder-0.pt").read_bytes() == written
    way = Way(mechanism="dp-probe", trust="secagg", epsilon=1.0, spread=True, student="sharp")
    found = measure(0, way, settings)
    for share in (found.accuracy, found.agreement, found.answered, found.taught, found.public):
        assert 0 <= share <= 1
    assert len(found.says) == 100


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_students_that_differ_alone_learn_from_one_answer(
    settings: Settings, epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_encoder(0, settings)
    answers, asked = digits_students.answer, []

    def remember(way, *given):
        asked.append(way)
        return answers(way, *given)

    monkeypatch.setattr(digits_students, "answer", remember)
    way = Way(mechanism="votes", trust="none", epsilon=epsilon, spread=True, student="", cells=20)
    for student in ("sharp", "plain"):
        measure(0, replace(way, student=student), settings)
    assert asked == [way]


@pytest.mark.parametrize("mechanism", ALONE)
def test_sites_whose_answers_have_no_sum_answer_alone(settings: Settings, mechanism: str) -> None:
    make_encoder(0, settings)
    _, proxy, sites = embedded(0, settings)
    way = Way(
        mechanism=mechanism,
        trust="none",
        epsilon=1.0,
        spread=True,
        student="",
        shards=5,
        queries=20,
        answers_at_most=10,
    )
    target = answer(way, sites, proxy, settings.honest)
    assert target.num_sites == 3
    assert target.probabilities.shape == (100, 10)


def test_ways_differ_in_the_student_alone_within_a_list() -> None:
    found = ways(MECHANISMS, ["sharp", "plain"])
    assert len(found) == (2 * 3 + 2) * 3
    assert {each[0].trust for each in found if each[0].mechanism in ALONE} == {"none"}
    for each in found:
        assert [way.student for way in each] == ["sharp", "plain"]
        assert len({replace(way, student="") for way in each}) == 1


def test_alike_is_the_share_that_each_pair_says_alike() -> None:
    assert alike(["0123", "0120", "9120"]) == pytest.approx([0.75, 0.5, 0.75])


def test_a_mean_has_a_standard_error_where_there_are_several() -> None:
    assert (shown([]), shown([0.5])) == ("", "50.00")
    assert shown([0.98, 0.99, 1.0]) == "99.00 ± 0.58"


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    digits.embedded.cache_clear()
    digits_students._answer_once.cache_clear()
    digits.read_digits.cache_clear()
