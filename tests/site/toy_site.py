"""A site of toy rows whose policy allows much, so that a test says what it takes away."""

from pathlib import Path

from fedistill.data import ProxySet
from fedistill.site import FloatNoise, LocalAgent, Policy
from tests.mechanisms.toy import make_rows

LEDGER = "bank_a.ledger.db"


def toy_site(folder: Path, proxy: ProxySet, **clauses: object) -> LocalAgent:
    """An agent whose ledger and receipts lie in `folder`."""
    policy: dict[str, object] = {
        "site": "bank_a",
        "population": "customers",
        "rows_at_least": 20,
        "total_epsilon": 2.0,
        "epsilon_per_release": 2.0,
        "delta": 1e-5,
        "mechanisms": ("dp-probe", "sharded", "dp-sgd", "dp-ebm"),
        "float_noise": FloatNoise.ALLOW,
        "proxy_sha256": (proxy.sha256,),
    }
    return LocalAgent(
        run="1",
        policy=Policy(**(policy | clauses)),  # type: ignore[arg-type]
        rows=make_rows(150),
        proxy=proxy,
        ledger_path=folder / LEDGER,
        receipts_path=folder / "receipts.jsonl",
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name: two are equal if nothing changed by a byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
