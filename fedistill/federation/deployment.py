"""A federation of sites on machines of their own: what its coordinator has, all of it public."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fedistill.config import RunConfig
from fedistill.config_rules import split_names
from fedistill.data import LabelledRows, ProxySet, code_rows, load_table
from fedistill.data.encoder import Encoder
from fedistill.data.wording import check_names
from fedistill.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What the coordinator of a deployed federation has.

    Attributes:
        name: What the data set is called: the name of the file of test rows.
        classes: Names of the classes, in the order of their indices.
        proxy: Public rows without labels.
        test: Public rows that only score.
        site_names: The sites that are asked.
        left_out: Nobody: who does not answer is missing.
    """

    name: str
    classes: tuple[str, ...]
    proxy: ProxySet
    test: LabelledRows
    site_names: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def open_deployment(config: RunConfig) -> Deployment:
    """Read the coordinator's two files.

    Raises:
        DataError: A file cannot be read, or the test rows do not fit classes or proxy set.
    """
    proxy = ProxySet.load(Path(config.proxy_path))
    if proxy.encoder is not None:
        proxy = replace(proxy, encoder=_encoder(config, proxy.encoder))
    classes = split_names(config.classes)
    table = load_table(
        config.test_path,
        label_column=config.label_column,
        ignore_columns=config.ignored,
        classes=classes,
    )
    check_names(table.columns, proxy.columns, f"test-path={config.test_path!r}: ")
    labelled = np.flatnonzero(table.labels >= 0)
    labels = table.labels[labelled]
    if absent := [name for k, name in enumerate(classes) if k not in labels]:
        raise DataError(
            f"test-path={config.test_path!r} must have rows of every class, and none is of "
            f"{', '.join(absent)}: check classes={config.classes!r}, or bring more test rows"
        )
    test = LabelledRows(
        columns=proxy.columns,
        rows=code_rows(table.columns, proxy.schema, labelled)[0],
        labels=labels,
        num_classes=len(classes),
    )
    return Deployment(
        name=table.name, classes=classes, proxy=proxy, test=test, site_names=config.sites
    )


def _encoder(config: RunConfig, published: Encoder) -> Encoder:
    """The proxy set's encoder, with the place of its file."""
    if published.import_path:
        return published
    found = Encoder.named(config.encoder)
    if found is None or found.identity != published.identity:
        raise DataError(
            f"encoder={config.encoder!r} must be the ONNX file of the proxy set's encoder, sha256 "
            f"{published.sha256}: give its full path"
        )
    return found
