"""`python -m tests.benchmark_action_units RAVDESS_FOLDER`: what simple classifiers read from mean action units alone.

The same speakers are tested as by `python -m train.avfusion_folds`: every actor once in four folds, and those of the
published split. It tells how much the means hold, whatever the classifier.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from emotion.datasets import ravdess

CLASSIFIERS: dict[str, BaseEstimator] = {
    "logistic regression": LogisticRegression(C=0.1, max_iter=1000),
    "support vectors": SVC(C=1.0),
    "extra trees": ExtraTreesClassifier(500, min_samples_leaf=2, random_state=0),
    "one hidden layer": MLPClassifier(256, alpha=5.0, max_iter=150, random_state=0),
}


def accuracy(model: BaseEstimator, x: np.ndarray, y: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Over all test clips of some (training, test) masks."""
    right = []
    for train, test in splits:
        fitted = clone(make_pipeline(StandardScaler(), model)).fit(x[train], y[train])
        right.append(fitted.predict(x[test]) == y[test])
    return float(np.concatenate(right).mean())


def main() -> None:
    """Print the table as Markdown."""
    table = ravdess.action_units(Path(sys.argv[1]))[1]
    clips = [ravdess.parse(name) for name in table]
    actors, y = np.array([c.actor for c in clips]), np.array([c.emotion for c in clips])
    tests = [np.isin(actors, group) for group in ravdess.deal(set(actors.tolist()), 4)]
    tested, unheard = (np.isin(actors, list(ravdess.PUBLISHED[part])) for part in ("test", "valid"))
    print("| classifier | plain, folds | published split | relative, folds | published split |\n|---|---|---|---|---|")
    for name, model in CLASSIFIERS.items():
        cells = []
        for values in (table, ravdess.relative_to_actor(table)):
            x = np.concatenate(list(values.values()))
            cells.append(accuracy(model, x, y, [(~test, test) for test in tests]))
            cells.append(accuracy(model, x, y, [(~tested & ~unheard, tested)]))
        print(f"| {name} | {' | '.join(f'{c:.1%}' for c in cells)} |", flush=True)


if __name__ == "__main__":
    main()
