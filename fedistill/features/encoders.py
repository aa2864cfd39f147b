"""Public encoders of images and text, run one row at a time.

A batched network gives a row other bits beside other rows: matrix products block their sums by the
size of the batch. So each row is encoded alone, on one thread, and its embedding depends on that
row and on the public encoder alone (PRIVACY rule 8).

Faults that public rows show are refused before anything is charged. A private row that the encoder
fails on, or answers with another shape or a number that is not finite, has no embedding and counts
as nothing (PRIVACY rule 3).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.data.encoder import Encoder, read_encoder
from fedistill.data.schema import Kind
from fedistill.errors import DataError, PolicyRefusal
from fedistill.features.onnx_encoder import load_onnx

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Encode = Callable[[Rows], Any]
"""Rows (1, num_columns) float32 to an array (1, dim)."""

MOST_DIMENSIONS = 16_384
"""Bound on the work that an embedding asks for."""

_REPEATED_ROWS = 20
_REMEMBERED = 4


class RowEncoder:
    """A loaded encoder whose answers on the proxy rows were checked.

    It remembers the embeddings of the latest few tables, for as long as the process lives.
    """

    def __init__(self, encoder: Encoder, encode: Encode, dimensions: int) -> None:
        self.encoder = encoder
        self.dimensions = dimensions
        self._encode = encode
        self._known: OrderedDict[bytes, Floats] = OrderedDict()

    def embed(self, rows: Rows) -> Floats:
        """Embeddings, one row at a time.

        Args:
            rows: (num_rows, num_columns) raw values.

        Returns:
            (num_rows, dimensions) float64; NaN throughout for a row that has no embedding.
        """
        shape = repr(rows.shape).encode()
        key = hashlib.sha256(shape + np.ascontiguousarray(rows).tobytes()).digest()
        if key not in self._known:
            found = np.full((len(rows), self.dimensions), np.nan)
            for number in range(len(rows)):
                found[number] = self._embed_one(rows[[number]])
            found.flags.writeable = False
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _embed_one(self, row: Rows) -> Floats:
        nothing = np.full(self.dimensions, np.nan)
        # Any code may fail on some rows, and that it did must not be seen (PRIVACY rule 3).
        try:
            answer = np.array(self._encode(row), dtype=np.float64)
        except Exception:
            return nothing
        if answer.shape != (1, self.dimensions) or not np.isfinite(answer).all():
            return nothing
        embedding: Floats = answer[0]
        return embedding


def row_encoder(proxy: ProxySet) -> RowEncoder:
    """Load the proxy set's encoder and check its answers on every proxy row.

    Raises:
        PolicyRefusal: It cannot be loaded, or on a proxy row it fails, answers another shape, a
            number that is not finite, or something else the second time. Nothing was charged.
    """
    encoder = proxy.encoder
    if encoder is None:
        raise ValueError("the proxy set has no encoder")
    _check_schema(proxy, encoder)
    encode = _load(encoder, len(proxy.columns))
    dimensions = len(_checked(encode, encoder, proxy.rows, 0))
    loaded = RowEncoder(encoder, encode, dimensions)
    embeddings = loaded.embed(proxy.rows)
    for number in np.flatnonzero(np.isnan(embeddings).any(axis=1)).tolist():
        answer = _checked(encode, encoder, proxy.rows, number)
        why = f"{len(answer)} numbers for it and {dimensions} for proxy row 0"
        raise _unfit(encoder, number, why if len(answer) != dimensions else "different things")
    for number in reversed(range(min(_REPEATED_ROWS, len(proxy.rows)))):
        again = _checked(encode, encoder, proxy.rows, number)
        if not np.array_equal(again, embeddings[number]):
            raise _unfit(encoder, number, "another answer the second time")
    return loaded


def _checked(encode: Encode, encoder: Encoder, rows: Rows, number: int) -> Floats:
    """The embedding (dim,) of a public row, or why there is none."""
    try:
        answer = np.array(encode(rows[[number]]), dtype=np.float64)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise _unfit(encoder, number, f"an error ({type(error).__name__}: {said})") from error
    if answer.ndim != 2 or len(answer) != 1 or not 1 <= answer.shape[1] <= MOST_DIMENSIONS:
        raise _unfit(encoder, number, f"an array of shape {answer.shape}")
    if not np.isfinite(answer).all():
        raise _unfit(encoder, number, "numbers that are not finite")
    embedding: Floats = answer[0]
    return embedding


def _unfit(encoder: Encoder, number: int, gave: str) -> PolicyRefusal:
    return PolicyRefusal(
        f"encoder={encoder.name!r} gives {gave} on proxy row {number}, and must give the same 1 to "
        f"{MOST_DIMENSIONS} finite numbers, shape (1, dim), for every proxy row: choose an encoder "
        "of these columns, and fill missing values"
    )


def _check_schema(proxy: ProxySet, encoder: Encoder) -> None:
    for column in proxy.schema:
        if column.kind is Kind.CATEGORY:
            raise PolicyRefusal(
                f"encoder={encoder.name!r} cannot see column {column.name!r}, which holds texts: "
                "name it in ignore-columns, or give its token ids as columns of numbers"
            )


def _load(encoder: Encoder, num_columns: int) -> Encode:
    if encoder.import_path:
        made: Encode = imported(encoder.import_path)
        return made
    if not encoder.path:
        raise PolicyRefusal(
            f"encoder={encoder.name!r} has no file on this machine: copy the ONNX file of this "
            "hash here and name it"
        )
    try:
        content = read_encoder(encoder.path)
    except DataError as error:
        raise PolicyRefusal(str(error)) from None
    if hashlib.sha256(content).hexdigest() != encoder.sha256:
        raise PolicyRefusal(
            f"encoder={encoder.name!r} must have the sha256 {encoder.sha256[:12]} that the proxy "
            "set's hash covers: bring back the file, or approve a new proxy set"
        )
    return load_onnx(content, f"encoder={encoder.name!r}", num_columns)


def imported(path: str) -> Callable[..., Any]:
    """What the factory of an import path makes.

    Raises:
        PolicyRefusal: It cannot be imported, fails, or makes nothing that can be called.
    """
    try:
        factory = EntryPoint(name=path, value=path, group="").load()
    # An import runs code, which may raise anything.
    except Exception as error:
        raise PolicyRefusal(
            f"encoder={path!r} cannot be imported ({type(error).__name__}: {error}): write it as "
            "package.module:factory of a package that the site has installed"
        ) from error
    try:
        encode = factory()
    except PolicyRefusal:
        raise
    except Exception as error:
        raise PolicyRefusal(
            f"encoder={path!r} must make an encoder when called without arguments "
            f"({type(error).__name__}: {error}): name a function that does"
        ) from error
    if not callable(encode):
        raise PolicyRefusal(
            f"encoder={path!r} makes a {type(encode).__name__}, which must be callable: return a "
            "function"
        )
    made: Callable[..., Any] = encode
    return made
