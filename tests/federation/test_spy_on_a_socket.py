"""A relay on the raw socket between courier and agent finds nothing that must stay."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load

from fedistill.federation.deployment import open_deployment
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import questions_of
from fedistill.privacy.ledger_key import load_key
from fedistill.site import open_ledger
from fedistill.site.daemon import serving
from fedistill.site.site_config import SiteConfig
from tests.deployed import write_federation
from tests.federation.deployed_secrets import (
    encodings,
    rows_and_key,
    twin_of,
    unnoised_codes,
    unnoised_tables,
)
from tests.federation.test_deployment import run
from tests.relays import Relay

pytestmark = pytest.mark.usefixtures("quick")


def stored(site, question: str) -> bytes:
    """An answer in the site's own ledger, noised."""
    with open_ledger(
        site.policy(), site.ledger, create=False, key=site.folder / "identity.key"
    ) as ledger:
        return ledger.cached(question).release


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "by itself"])
def test_rows_keys_and_what_is_not_noised_never_cross_the_socket(sealed: bool) -> None:
    clauses = {"evaluation": "allow", "holdout_fraction": 0.3, "total_epsilon": 12.0}
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        sites, config = write_federation(folder, secure_aggregation="optional", **clauses)
        config = config.model_copy(
            update={
                "holdout_fraction": 0.3,
                "evaluation_epsilon": 4.0,
                "secure_aggregation": sealed,
            }
        )
        twins = {name: twin_of(site) for name, site in sites.items()}
        spies, relayed = {}, {}
        for name, site in sites.items():
            stack.enter_context(serving(SiteConfig.load(site.config)))
            place = folder / f"{name}.spy"
            spies[name] = stack.enter_context(Relay(place, site.socket))
            relayed[name] = SimpleNamespace(socket=place)
        summary = run(config, relayed)
        assert summary.metrics.federated is not None
        questions = questions_of(config, open_deployment(config))
        for name, spy in spies.items():
            site, twin = sites[name], twins[name]
            assert spy.saw(bytes.fromhex(load_key(site.folder / "identity.key").public))
            noised = load(stored(site, questions[name].sha256))["codes"]
            assert spy.saw(noised.tobytes()) is not sealed
            secrets = rows_and_key(site, twin)
            codes = unnoised_codes(twin, config)
            assert np.corrcoef(codes.ravel(), noised.ravel())[0, 1] > 0.5
            student = run_folder(config, "7").path / "student.onnx"
            secrets += encodings(codes)
            assert not [secret[:24] for secret in secrets if spy.saw(secret)]
            tables = encodings(unnoised_tables(twin, config, student))
            assert not any(spy.saw(table, whole=True) for table in tables)
