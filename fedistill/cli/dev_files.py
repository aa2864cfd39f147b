"""Files of a federation on one machine: what its coordinator and three banks would have made.

The rows are those of the shipped set `credit_default`, cut as in the app `simulations/banks_3`.
Keys, kits and pins are real ones, made by the functions behind `fedistill provision` and `fedistill
site`; only the telephone is missing, since one person has all fingerprints.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import tomli_w

from fedistill.cli.dev_folder import SITES, DevFolder
from fedistill.cli.proxy_file import write_proxy
from fedistill.cli.shipped_file import readable, write_table
from fedistill.config import RunConfig
from fedistill.data import SHIPPED, ProxySet, load_table
from fedistill.data.split import cut_table
from fedistill.privacy.ledger_key import fingerprint
from fedistill.provision import coordinator, files
from fedistill.provision.project import Project
from fedistill.provision.site_folder import init_site, join, pin
from fedistill.site import Policy, Sealing, open_ledger

DATASET = "credit_default"
COLUMN_OF_BANKS = "LIMIT_BAL"
PROXY_FRACTION, TEST_FRACTION = 0.2, 0.15
ROWS_AT_LEAST = 5000
TOTAL_EPSILON = 4.0
DELTA = 1e-5
VALIDITY_DAYS = 30

_APP = """\
# The app of this federation. `fedistill config` explains every key.

"""


def write_data(folder: DevFolder) -> None:
    """Rows of each bank, public rows with and without labels, and the published proxy set."""
    shipped = SHIPPED[DATASET]
    table = readable(shipped)
    public, test, private = cut_table(
        load_table(DATASET), proxy_fraction=PROXY_FRACTION, test_fraction=TEST_FRACTION
    )
    files.make_folder(folder.workshop.folder)
    public_file = folder.workshop.folder / "public.csv"
    write_table(table.take(pa.array(public)), public_file)
    write_table(table.take(pa.array(test)), folder.test)
    write_proxy(
        public_file,
        folder.proxy,
        ignore_columns=(shipped.label_column,),
        encoder="",
        force=False,
    )
    limits = table.column(COLUMN_OF_BANKS).to_numpy()[private]
    parts = np.array_split(private[np.argsort(limits, kind="stable")], len(SITES))
    for site, part in zip(SITES, parts, strict=True):
        files.make_folder(folder.site(site).path)
        write_table(table.take(pa.array(part)), folder.site(site).path / "rows.csv")


def provision(folder: DevFolder, port: int, superlink_port: int) -> None:
    """Keys of all, certificates, kits that were joined, and pins."""
    now = datetime.now(UTC)
    workshop = folder.workshop
    project = Project(
        name="dev",
        hosts=("127.0.0.1",),
        port=port,
        superlink_port=superlink_port,
        sites=SITES,
        validity_days=VALIDITY_DAYS,
    )
    text = tomli_w.dumps(project.model_dump(mode="json", by_alias=True))
    files.write(workshop.project_file, text.encode())
    made = coordinator.init(workshop, now=now)
    fingerprints = {}
    for site in SITES:
        identity = init_site(folder.site(site), site, now=now)
        fingerprints[site] = fingerprint(identity.public)
        request = coordinator.read_request(folder.site(site).request)
        made = coordinator.sign(workshop, request, now=now)
    for site in SITES:
        join(folder.site(site), made.kits[site], fingerprint=made.fingerprint, now=now)
        for other in fingerprints.keys() - {site}:
            pin(folder.site(site), other, fingerprints[other])


def write_sites(folder: DevFolder) -> None:
    """Each bank's policy, its agent's file, its copy of the proxy set, and its ledger."""
    published = folder.proxy.read_bytes()
    sha256 = ProxySet.load(folder.proxy).sha256
    for site in SITES:
        own = folder.site(site)
        files.write(own.path / "proxy.bin", published)
        policy = Policy(
            site=site,
            population=f"customers of {site}",
            rows_at_least=ROWS_AT_LEAST,
            total_epsilon=TOTAL_EPSILON,
            epsilon_per_release=TOTAL_EPSILON,
            delta=DELTA,
            mechanisms=("dp-probe",),
            proxy_sha256=(sha256,),
            secure_aggregation=Sealing.REQUIRED,
        )
        policy.save(own.policy)
        files.write(folder.agent(site), tomli_w.dumps(_agent(folder, site, sha256)).encode())
        open_ledger(policy, own.path / "ledger.db", create=True, key=own.identity).close()


def write_app(folder: DevFolder) -> None:
    """The app directory that `flwr run` submits: configuration only."""
    shipped = SHIPPED[DATASET]
    config = RunConfig.from_flat(
        {
            "proxy-path": str(folder.proxy),
            "test-path": str(folder.test),
            "classes": ",".join(shipped.class_names),
            "label-column": shipped.label_column,
            "site-names": ",".join(SITES),
            "num-sites": len(SITES),
            "delta": DELTA,
        }
    )
    document = {
        "project": {
            "name": "dev",
            "version": "0.1.0",
            "description": "Three banks on one machine.",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedistill",
                    "components": {
                        "serverapp": "fedistill.federation.server_app:app",
                        "clientapp": "fedistill.federation.courier:app",
                    },
                    "config": config.to_flat(),
                }
            }
        },
    }
    files.make_folder(folder.app)
    files.write(folder.app / "pyproject.toml", (_APP + tomli_w.dumps(document)).encode())


def _agent(folder: DevFolder, site: str, proxy_sha256: str) -> Mapping[str, object]:
    shipped = SHIPPED[DATASET]
    return {
        "data-path": "rows.csv",
        "label-column": shipped.label_column,
        "classes": list(shipped.class_names),
        "proxy-path": "proxy.bin",
        "proxy-sha256": proxy_sha256,
        "socket-path": str(folder.socket(site)),
    }
