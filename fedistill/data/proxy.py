"""The public proxy set: rows without labels, pinned by the hash of their canonical bytes.

Canonical bytes, version 2:

    fedistill-proxy-2\\n
    {"schema":[[name,kind,[category,...]],...],"shape":[num_rows,num_columns]}\\n
    num_rows * num_columns * 4 bytes

The second line is ASCII JSON without spaces and in this order; where the set has an encoder,
`,"encoder":"onnx:<sha256 of the file>"` or `,"encoder":"import:<path>"` follows the shape, so that
whoever approves the hash approves the encoder. The values are little-endian float32, row by row,
with 0x7fc00000 for every NaN and 0.0 for -0.0. A saved proxy set is these bytes, so that
`sha256sum` on the file prints the hash that sites approve.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fedistill.data.encoder import Encoder
from fedistill.data.schema import ColumnSchema, Kind, Schema
from fedistill.data.table import Rows
from fedistill.data.wording import listing, repeated
from fedistill.errors import DataError

_TAG = b"fedistill-proxy-2\n"
_NAN_BITS = 0x7FC00000
_LITTLE_ENDIAN = np.dtype("<f4")


@dataclass(frozen=True, kw_only=True, eq=False)
class ProxySet:
    """Public rows. They have no labels: there is no field that could hold them.

    Equal proxy sets have equal canonical bytes, whatever the memory order or NaN bits they were
    made from.

    Attributes:
        schema: Names of the columns, all different, and what their values mean.
        rows: (num_proxy, num_columns) float32, C order, read-only, finite or NaN (missing).
        encoder: What sees the rows before any feature is made of them; None for tables.

    Raises:
        DataError: The shape does not fit the columns, a name is empty or repeated, there is no
            row, a value is infinite, or a category's code is not one.
    """

    schema: Schema
    rows: Rows
    encoder: Encoder | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", tuple(self.schema))
        with np.errstate(over="ignore"):
            rows = np.array(self.rows, dtype=np.float32, order="C")
        _check(self.columns, rows)
        _check_codes(self.schema, rows)
        object.__setattr__(self, "rows", _canonical(rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProxySet) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.schema)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the canonical bytes."""
        return hashlib.sha256(self.canonical_bytes()).hexdigest()

    def canonical_bytes(self) -> bytes:
        """The bytes that identify this set; the module's docstring states their format."""
        schema = [(column.name, column.kind, column.categories) for column in self.schema]
        header: dict[str, object] = {"schema": schema, "shape": self.rows.shape}
        if self.encoder is not None:
            header["encoder"] = self.encoder.identity
        line = json.dumps(header, separators=(",", ":")).encode("ascii")
        return _TAG + line + b"\n" + self.rows.astype(_LITTLE_ENDIAN, copy=False).tobytes()

    def save(self, path: Path) -> None:
        """Write the canonical bytes to `path`."""
        path.write_bytes(self.canonical_bytes())

    @classmethod
    def load(cls, path: Path) -> "ProxySet":
        """Read what `save` wrote; of an ONNX encoder only the hash is in there, not its place.

        Raises:
            DataError: The file cannot be read or holds anything but canonical bytes.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"proxy set {path} cannot be read ({error.strerror}): check the path and its "
                "permissions"
            ) from None
        found = _parse(content)
        if found is None or found.canonical_bytes() != content:
            raise DataError(
                f"proxy set {path} must be the bytes that fedistill wrote: copy the file again "
                "from whoever published it"
            )
        return found


def _check(columns: tuple[str, ...], rows: Rows) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(columns) or not columns:
        raise DataError(
            f"proxy rows of shape {rows.shape} must have one column for each of the "
            f"{len(columns)} names: pass the names and rows of one table"
        )
    if len(rows) == 0:
        raise DataError("proxy rows=0 must be at least 1: pass at least one row")
    if "" in columns:
        raise DataError("proxy column '' must have a name: name every column")
    twice = repeated(columns)
    if twice:
        raise DataError(f"proxy columns {listing(twice)} must differ: rename the repeated ones")
    if np.isinf(rows).any():
        names = [columns[j] for j in np.flatnonzero(np.isinf(rows).any(axis=0))]
        raise DataError(
            f"proxy columns {listing(names)} hold infinite values, and values must be finite or "
            "NaN: use NaN for missing values"
        )


def _check_codes(schema: Schema, rows: Rows) -> None:
    for j, column in enumerate(schema):
        if column.kind is not Kind.CATEGORY:
            continue
        codes = rows[:, j][~np.isnan(rows[:, j])]
        outside = (codes < 0) | (codes >= len(column.categories)) | (codes != np.trunc(codes))
        if outside.any():
            raise DataError(
                f"proxy column {column.name!r} holds {codes[outside][0]:g}, which must be a "
                f"category's code, 0 to {len(column.categories) - 1}: code its texts as the schema "
                "does"
            )


def _canonical(rows: Rows) -> Rows:
    """`rows` changed in place, then copied into bytes, of which no view can be made writable."""
    rows[rows == 0] = 0.0
    rows.view(np.uint32)[np.isnan(rows)] = _NAN_BITS
    return np.frombuffer(rows.tobytes(), dtype=np.float32).reshape(rows.shape)


def _parse(content: bytes) -> ProxySet | None:
    """The proxy set of these bytes, or None where they have another format."""
    if not content.startswith(_TAG):
        return None
    line, _, body = content[len(_TAG) :].partition(b"\n")
    try:
        header = json.loads(line)
        rows = np.frombuffer(body, dtype=_LITTLE_ENDIAN).reshape(header["shape"])
        schema = tuple(
            ColumnSchema(name=name, kind=Kind(kind), categories=tuple(categories))
            for name, kind, categories in header["schema"]
        )
        named = header.get("encoder")
        encoder = None if named is None else Encoder.identified(named)
        return ProxySet(schema=schema, rows=rows, encoder=encoder)
    except (ValueError, TypeError, KeyError, AttributeError, DataError):
        return None
