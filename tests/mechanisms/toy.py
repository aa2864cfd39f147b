"""Rows whose labels depend on them, the proxy set they are labelled on, and a question."""

import numpy as np

from fedistill.data import LabelledRows, ProxySet, numbers
from fedistill.labels import LabelQuestion

COLUMNS = ("a", "b", "c", "d")


def true_logits(rows: np.ndarray, num_classes: int) -> np.ndarray:
    return np.stack([(k - 1) * rows[:, k % 4] * 2 for k in range(num_classes)], 1)


def make_rows(num_rows: int, num_classes: int = 2, seed: int = 0) -> LabelledRows:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num_rows, len(COLUMNS))).astype(np.float32)
    logits = true_logits(rows, num_classes)
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return LabelledRows(columns=COLUMNS, rows=rows, labels=labels, num_classes=num_classes)


def make_proxy(num_rows: int = 400) -> ProxySet:
    return ProxySet(schema=numbers(COLUMNS), rows=make_rows(num_rows, seed=1).rows)


def without_rows(num_classes: int = 2) -> LabelledRows:
    return make_rows(1, num_classes).take(np.zeros(0, np.intp))


def ask(proxy: ProxySet, mechanism: str, **changes: object) -> LabelQuestion:
    asked: dict[str, object] = {
        "mechanism": mechanism,
        "epsilon": 1.0,
        "delta": 1e-5,
        "probe_steps": 6,
        "num_classes": 2,
        "proxy_sha256": proxy.sha256,
    }
    return LabelQuestion(**(asked | changes))  # type: ignore[arg-type]
