"""scikit-learn's own checks of estimators, and the tools that people put around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from advntk_dist.estimators import AdvNTKClassifier, NTKClassifier

CLASSIFIERS = [
    NTKClassifier("mlp-2"),
    AdvNTKClassifier("mlp-2", steps=10, attack_steps=2),
    AdvNTKClassifier("mlp-2", recipe="paper", steps=15, lr=1.0, attack_steps=2),
]


@parametrize_with_checks(CLASSIFIERS)  # type: ignore[untyped-decorator]
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    return x[:300] / 16, y[:300]


def test_pipeline_and_grid_search(digits: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    x, y = digits
    search = GridSearchCV(
        make_pipeline(MinMaxScaler(), NTKClassifier("mlp-2")), {"ntkclassifier__t": [1e-4, float("inf")]}, cv=2
    )
    search.fit(x, y)
    assert search.best_params_["ntkclassifier__t"] == float("inf")
    assert search.best_score_ > 0.85
    assert clone(search.best_estimator_[-1]).t == float("inf")


def test_adv_ntk_in_a_pipeline_and_a_grid_search(digits: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    x, y = digits
    robust = AdvNTKClassifier("mlp-2", radius=0.1, steps=3, attack_steps=2, random_state=0)
    grid = {"advntkclassifier__recipe": ["cross-fit", "paper"]}
    search = GridSearchCV(make_pipeline(MinMaxScaler(), robust), grid, cv=2).fit(x, y)
    assert search.best_params_["advntkclassifier__recipe"] == "cross-fit"  # three steps of the paper's lead nowhere
    assert search.best_score_ > 0.5
