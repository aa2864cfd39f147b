"""Three deployed sites of a small table: files as a coordinator and each site would have them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from fedistill.config import RunConfig
from fedistill.data import ProxySet, infer_schema, load_table
from fedistill.data.coding import code_rows
from fedistill.privacy.ledger_key import create_key, load_key
from fedistill.site import Policy, open_ledger
from tests.small import COLUMNS, write_table

SITES = ("bank_a", "bank_b", "bank_c")
CLASSES = ("no", "yes")


@dataclass(frozen=True)
class Site:
    """A site's folder."""

    name: str
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def socket(self) -> Path:
        return self.folder.parent / f"{self.name}.run" / "agent.sock"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    def policy(self) -> Policy:
        return Policy.load(self.folder / "policy.toml")

    def charges(self) -> int:
        with open_ledger(
            self.policy(), self.ledger, create=False, key=self.folder / "identity.key"
        ) as ledger:
            return len(ledger.entries())


def write_csv(path: Path, rows: np.ndarray, labels: np.ndarray | None) -> None:
    names = [*COLUMNS, *(() if labels is None else ("default",))]
    lines = [",".join(names)]
    for i, row in enumerate(rows):
        cells = ["" if np.isnan(value) else f"{value:.6g}" for value in row]
        lines.append(",".join(cells + ([] if labels is None else [CLASSES[labels[i]]])))
    path.write_text("\n".join(lines) + "\n")


def write_federation(folder: Path, **clauses: object) -> tuple[dict[str, Site], RunConfig]:
    """Files of a coordinator in `folder`, and of three sites below it."""
    with np.load(write_table(folder / "all.npz")) as table:
        rows, labels = table["X"], table["y"]
    public, test, *parts = np.split(np.arange(len(rows)), [300, 500, 833, 1166])
    write_csv(folder / "public.csv", rows[public], labels[public])
    write_csv(folder / "test.csv", rows[test], labels[test])
    table = load_table(str(folder / "public.csv"), label_column="default")
    index = np.arange(len(public))
    schema = infer_schema(table.columns, index)
    proxy = ProxySet(schema=schema, rows=code_rows(table.columns, schema, index)[0])
    proxy.save(folder / "proxy.bin")
    sites = {name: Site(name, folder / name) for name in SITES}
    for site in sites.values():
        site.folder.mkdir(mode=0o700)
        create_key(site.folder / "identity.key")
    create_key(folder / "server" / "server.key")
    keys = {name: load_key(each.folder / "identity.key").public for name, each in sites.items()}
    for (name, site), part in zip(sites.items(), parts, strict=True):
        write_csv(site.folder / "rows.csv", rows[part], labels[part])
        fields = {
            "site": name,
            "population": f"customers of {name}",
            "rows_at_least": 100,
            "total_epsilon": 4.0,
            "epsilon_per_release": 4.0,
            "delta": 1e-5,
            "mechanisms": ("dp-probe",),
            "proxy_sha256": (proxy.sha256,),
            "secure_aggregation": "required",
            "server_key": load_key(folder / "server" / "server.key").public,
            "peers": {other: key for other, key in keys.items() if other != name},
        }
        policy = Policy.model_validate(fields | clauses, strict=False)
        policy.save(site.folder / "policy.toml")
        site.config.write_text(
            tomli_w.dumps(
                {
                    "data-path": "rows.csv",
                    "label-column": "default",
                    "classes": CLASSES,
                    "proxy-path": "../proxy.bin",
                    "proxy-sha256": proxy.sha256,
                    "socket-path": f"../{name}.run/agent.sock",
                }
            )
        )
        open_ledger(policy, site.ledger, create=True, key=site.folder / "identity.key").close()
    config = RunConfig.from_flat(run_config(folder))
    return sites, config


def run_config(folder: Path) -> dict[str, bool | int | float | str]:
    """What the coordinator asks for."""
    return {
        "proxy-path": str(folder / "proxy.bin"),
        "test-path": str(folder / "test.csv"),
        "classes": ",".join(CLASSES),
        "label-column": "default",
        "site-names": ",".join(SITES),
        "epsilon": 4.0,
        "prune-ratio": 0.0,
        "quantize": "none",
        "phase-timeout": 20.0,
        "countersign-dir": str(folder / "server"),
        "output-dir": str(folder / "run"),
    }
