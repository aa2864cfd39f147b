"""What one could reach if there were no privacy to keep: the upper yardstick of the report."""

import numpy as np
import numpy.typing as npt

from fedistill.data.schema import Schema
from fedistill.features import Expansion

Floats = npt.NDArray[np.float64]

MOST_NUMBERS = 4_000_000
"""Rows times columns that the model sees; of wide tables, such as images, it sees fewer rows."""


def central_reference(
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    test_rows: npt.NDArray[np.float32],
    *,
    num_classes: int,
    schema: Schema,
) -> Floats:
    """Class probabilities (num_test, num_classes) of a boosted model that saw all sites' rows.

    Not private, and for simulations only: it needs the private `rows` (n, d) and `labels` (n,) of
    every site in one place, so in a deployment nobody may compute it. Missing values are NaN, and
    categories are taken apart as `schema` says; classes without a row get probability zero. Same
    rows, same answer: the random state is fixed. Of more than `MOST_NUMBERS` numbers it sees rows
    drawn at random.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    most = max(MOST_NUMBERS // rows.shape[1], 2)
    if len(rows) > most:
        drawn = np.random.default_rng(0).permutation(len(rows))[:most]
        rows, labels = rows[drawn], labels[drawn]
    answer = np.zeros((len(test_rows), num_classes))
    present = np.unique(labels)
    if len(present) < 2:
        answer[:, present] = 1.0
        return answer
    expansion = Expansion.of(schema)
    seen, asked = expansion.transform(rows), expansion.transform(test_rows)
    # The model cannot bin a column without a value; of such a column nothing can be learned.
    known = ~np.isnan(seen).all(axis=0)
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(np.where(known, seen, 0), labels)
    answer[:, model.classes_] = model.predict_proba(np.where(known, asked, 0))
    return answer
