"""scikit-learn's own checks of estimators, and the tools that people put around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from advntk_dist.estimators import AdvNTKClassifier, NTKClassifier
from tests.kernels.unoptimised import unoptimised

ALL = AdvNTKClassifier("mlp-2", steps=1, attack_steps=0)
"""Every check by default. Images are perturbed at random only: an attack compiles anew for every shape of data."""
OTHER = NTKClassifier("mlp-2")
SLOW = [AdvNTKClassifier("mlp-2", steps=10, attack_steps=2)]
SLOW += [AdvNTKClassifier("mlp-2", recipe="paper", steps=15, lr=1.0, attack_steps=steps) for steps in (0, 2)]
SHAPES_OF_THEIR_OWN = {
    "check_classifier_data_not_an_array",
    "check_classifiers_train",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_fit2d_1feature",
    "check_fit_check_is_fitted",
    "check_fit_score_takes_y",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
}
"""Of what all estimators here inherit from one class: checks whose kernels have to be compiled for them."""


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled() -> Iterator[None]:
    with unoptimised():
        yield


def _checks() -> Iterator[Any]:
    for estimator in (ALL, OTHER, *SLOW):
        for made, check in estimator_checks_generator(estimator):
            given = ", ".join(f"{k}={v}" for k, v in check.keywords.items())
            words = f"{estimator!r}-{check.func.__name__}({given})".replace("\n", " ")
            slow = estimator in SLOW or (estimator is OTHER and check.func.__name__ in SHAPES_OF_THEIR_OWN)
            yield pytest.param(made, check, id=words, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("estimator", "check"), list(_checks()))
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
    search = GridSearchCV(make_pipeline(MinMaxScaler(), robust), grid, cv=2, refit=False).fit(x, y)
    assert search.best_params_["advntkclassifier__recipe"] == "cross-fit"  # three steps of the paper's lead nowhere
    assert search.best_score_ > 0.5
