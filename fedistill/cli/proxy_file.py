"""A file of public rows as the proxy set of a deployment."""

from pathlib import Path

import numpy as np

from fedistill.data import ProxySet, code_rows, infer_schema
from fedistill.data.coding import check_types
from fedistill.data.encoder import Encoder
from fedistill.data.files import read_file
from fedistill.data.wording import listing
from fedistill.errors import BadInput, DataError


def write_proxy(
    file: Path, out: Path, *, ignore_columns: tuple[str, ...], encoder: str, force: bool
) -> ProxySet:
    """Read public rows, code them by the schema that they decide, and write the proxy set.

    Raises:
        BadInput: `file` cannot be read, a column cannot be a feature, or `out` cannot be written.
    """
    if out.exists() and not force:
        raise BadInput(f"{str(out)!r} is there already: give --force to replace it")
    proxy = read_public(file, ignore_columns=ignore_columns, encoder=encoder)
    try:
        proxy.save(out)
    except OSError as error:
        raise BadInput(f"{str(out)!r} cannot be written: {error.strerror}") from error
    return proxy


def read_public(file: Path, *, ignore_columns: tuple[str, ...], encoder: str = "") -> ProxySet:
    """Public rows of a CSV, Parquet or npz file, coded by the schema that they decide.

    Raises:
        BadInput: `file` cannot be read, or a column cannot be a feature.
    """
    raw = read_file(file.absolute(), ignore_columns)
    known = {**raw.columns, **raw.extras}
    for name in ignore_columns:
        if name not in known:
            raise DataError(
                f"--ignore-columns: {name!r} must be one of {listing(known)}: correct the name"
            )
    columns = {name: each for name, each in raw.columns.items() if name not in ignore_columns}
    if not columns:
        raise DataError(f"{raw.source} has 0 columns left: name fewer in --ignore-columns")
    check_types(columns)
    index = np.arange(len(next(iter(columns.values()))))
    schema = infer_schema(columns, index)
    return ProxySet(
        schema=schema,
        rows=code_rows(columns, schema, index)[0],
        encoder=Encoder.named(encoder),
    )
