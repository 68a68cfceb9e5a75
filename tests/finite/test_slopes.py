from __future__ import annotations

import numpy as np
import pytest

from advntk_dist.finite.summary import compare_with_closed_form, fit_slope

WIDTHS = np.repeat([16, 64, 256, 1024], 5)


def test_a_power_law_is_found_exactly() -> None:
    line = fit_slope(WIDTHS, 3.0 * WIDTHS**-0.5)
    assert line.slope == pytest.approx(-0.5)
    assert np.exp(line.intercept) == pytest.approx(3.0)
    assert line.low <= line.slope <= line.high
    assert line.high - line.low < 1e-6


def test_the_interval_holds_the_truth_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        line = fit_slope(WIDTHS, WIDTHS**-0.5 * np.exp(0.3 * rng.standard_normal(len(WIDTHS))))
        inside += line.low <= -0.5 <= line.high
    assert 0.91 < inside / 400 < 0.985


@pytest.mark.parametrize(
    ("widths", "values"), [([8, 16], [1.0, 0.5]), ([8, 8, 8], [1.0, 1.0, 1.0]), ([8, 16, 32], [1.0, 0.0, 1.0])]
)
def test_what_is_no_power_law_is_refused(widths: list[int], values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"slope|power"):
        fit_slope(widths, values)


def test_an_ensemble_around_the_truth_agrees_with_it() -> None:
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((3, 40, 10))
    found = compare_with_closed_form(truth + 0.2 * rng.standard_normal((8, *truth.shape)), truth)
    np.testing.assert_allclose(found.distance, 0.2 / np.sqrt(8), rtol=0.2)
    np.testing.assert_allclose(found.standard_error, 0.2 / np.sqrt(8), rtol=0.2)
    assert (np.abs(found.within - 0.95) < 0.04).all()
    off = compare_with_closed_form(truth + 1.0 + 0.2 * rng.standard_normal((8, *truth.shape)), truth)
    assert (off.within < 0.1).all()
    with pytest.raises(ValueError, match="two seeds"):
        compare_with_closed_form(truth[None], truth)
