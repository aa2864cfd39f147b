"""Whether a site's rows fit the public proxy set, and are enough. Nothing of it leaves the site."""

from dataclasses import dataclass
from pathlib import Path

from fedistill.data import ProxySet, code_table, load_table, misfits_in_words, register_rows
from fedistill.errors import DataError, PolicyRefusal
from fedistill.provision.preflight import Check, failed, warning, well, wrong
from fedistill.provision.site_folder import SiteFolder
from fedistill.site.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which file to check, and what its columns are.

    Attributes:
        file: Absolute path of a CSV, Parquet or npz file.
        proxy: The proxy set that was published, as `ProxySet.save` wrote it.
        label_column: The column to predict.
        classes: Names of the agreed classes, in their order.
        unit_column: Whom a row is about; "" where each row is about somebody else.
        ignore_columns: Columns that are no features.
    """

    file: Path
    proxy: Path
    label_column: str
    classes: tuple[str, ...]
    unit_column: str = ""
    ignore_columns: tuple[str, ...] = ()


def data_checks(folder: SiteFolder, data: Data) -> list[Check]:
    """The policy approves the proxy set, the columns are its columns, and enough rows fit."""
    try:
        proxy = ProxySet.load(data.proxy)
    except DataError as error:
        return [failed("proxy set", error)]
    try:
        policy = Policy.load(folder.policy)
    except PolicyRefusal:
        return [wrong("proxy set", "there is no policy to approve it", "write policy.toml first")]
    return [_approval(policy, proxy), *_rows(policy, proxy, data)]


def _approval(policy: Policy, proxy: ProxySet) -> Check:
    if proxy.sha256 in policy.proxy_sha256:
        return well("proxy set", f"{len(proxy.rows):,} rows, approved by the policy")
    return wrong(
        "proxy set",
        f"proxy-sha256={proxy.sha256[:12]}... is not among the policy's",
        "look at the set, then add its hash (sha256sum) to proxy-sha256 in policy.toml",
    )


def _rows(policy: Policy, proxy: ProxySet, data: Data) -> list[Check]:
    try:
        table = load_table(
            str(data.file.absolute()),
            label_column=data.label_column,
            unit_column=data.unit_column,
            ignore_columns=data.ignore_columns,
            classes=data.classes,
        )
        rows = code_table(table, proxy.schema)
        fitting = register_rows(
            rows,
            proxy,
            num_classes=len(data.classes),
            rows_at_least=policy.rows_at_least,
        )
    except DataError as error:
        return [failed("data", error)]
    found = f"{len(fitting.labels):,} rows fit, rows-at-least is {policy.rows_at_least:,}"
    misfits = misfits_in_words(rows)
    if misfits:
        return [well("data", found), warning("misfits", misfits, "correct them, or let them be")]
    return [well("data", found)]
