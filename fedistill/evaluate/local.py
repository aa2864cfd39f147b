"""What a site could reach alone and without privacy: its yardstick for joining.

scikit-learn is imported where it is used: the processes of a run share little memory.
"""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedistill.evaluate.figures import Floats, Ints
from fedistill.evaluate.metrics import auc

Rows = npt.NDArray[np.float32]
Learner = Callable[[Rows, Ints, Rows, int], Floats]

FOLDS = 3
LEAST_ROWS = 10
MOST_ROWS_TO_CHOOSE = 4000
MOST_COLUMNS_TO_BOOST = 256
"""Of more columns, such as pixels, boosting takes minutes a site and does little better."""

_FARTHEST = 10.0


def local_model(rows: Rows, labels: Ints, test_rows: Rows, *, num_classes: int) -> Floats:
    """Class probabilities (num_test, num_classes) of a site's own best non-private model.

    The better of gradient boosting and logistic regression on the site's own rows, by the AUC of
    up to three stratified folds of them; above 4,000 rows a fixed sample of that many chooses. Of
    more than 256 columns it is logistic regression. One class, or fewer than 10 rows, give the
    class shares; classes without a row get probability zero. Not private, and for simulations
    only. Same rows, same answer: no test label is used and every random state is fixed.

    Args:
        rows: (n, d) float32, expanded columns, NaN for missing.
        labels: (n,), integers in [0, num_classes).
        test_rows: (num_test, d), as `rows`.
        num_classes: Number of classes.
    """
    rows, test_rows = _finite(rows), _finite(test_rows)
    counts = np.bincount(labels, minlength=num_classes)
    if len(labels) < LEAST_ROWS or np.count_nonzero(counts) < 2:
        shares = counts / len(labels) if len(labels) else np.full(num_classes, 1 / num_classes)
        return np.tile(shares, (len(test_rows), 1))
    return _best(rows, labels, num_classes)(rows, labels, test_rows, num_classes)


def _best(rows: Rows, labels: Ints, num_classes: int) -> Learner:
    """The learner with the highest AUC, averaged over folds; the simpler one when none is tried."""
    from sklearn.model_selection import StratifiedKFold

    if rows.shape[1] > MOST_COLUMNS_TO_BOOST:
        return _logistic
    chosen = np.random.default_rng(0).permutation(len(labels))[:MOST_ROWS_TO_CHOOSE]
    counts = np.bincount(labels[chosen], minlength=num_classes)
    # A class of one row cannot be both learned and tested.
    chosen = chosen[counts[labels[chosen]] >= 2]
    repeated = counts[counts >= 2]
    if len(repeated) < 2:
        return _logistic
    rows, labels = rows[chosen], labels[chosen]
    folds = StratifiedKFold(min(FOLDS, int(repeated.min())), shuffle=True, random_state=0)

    def value(learner: Learner) -> float:
        areas = [
            auc(learner(rows[seen], labels[seen], rows[held], num_classes), labels[held])
            for seen, held in folds.split(rows, labels)
        ]
        return float(np.mean([area for area in areas if area is not None]))

    return max((_logistic, _boosted), key=value)


def _logistic(rows: Rows, labels: Ints, test_rows: Rows, num_classes: int) -> Floats:
    """Logistic regression on standardized columns, with a column for each that may be missing."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    model = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        FunctionTransformer(np.clip, kw_args={"a_min": -_FARTHEST, "a_max": _FARTHEST}),
        LogisticRegression(C=0.1, max_iter=200),
    )
    with warnings.catch_warnings():
        # A fit that stopped early is still a candidate; the folds say what it is worth.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows.astype(np.float64), labels)
    answer = np.zeros((len(test_rows), num_classes))
    answer[:, model.classes_] = model.predict_proba(test_rows.astype(np.float64))
    return answer


def _boosted(rows: Rows, labels: Ints, test_rows: Rows, num_classes: int) -> Floats:
    """Gradient boosting with smaller trees and leaves where rows are few."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # The model cannot bin a column without a value; of such a column nothing can be learned.
    known = ~np.isnan(rows).all(axis=0)
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=100,
        max_leaf_nodes=8 if len(labels) < 2000 else 15,
        min_samples_leaf=int(np.clip(len(labels) // 20, 3, 20)),
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )
    model.fit(np.where(known, rows, 0), labels)
    answer = np.zeros((len(test_rows), num_classes))
    answer[:, model.classes_] = model.predict_proba(np.where(known, test_rows, 0))
    return answer


def _finite(rows: Rows) -> Rows:
    return np.where(np.isfinite(rows), rows, np.nan).astype(np.float32)
