"""Captions say what the data say: like is compared with like, and no course is told that the curve does not take."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from advntk_dist.report import Extremes, TrainingHistory
from advntk_dist.report.dynamics import Flows, dynamics_caption
from advntk_dist.report.image_plots import extremes_caption
from advntk_dist.report.inputs import TimedImages, running_mean
from advntk_dist.report.run_plots import training_caption, training_figure


def history(loss: list[float], cycle: int) -> TrainingHistory:
    ones = np.full(len(loss), 0.5)
    return TrainingHistory(np.array(loss), ones, ones, ones, ones, cycle=cycle)


# The level of each step of a cycle is its own: the first is far below the last, whatever training does.
ZIGZAG = [level + 0.01 * step for step, level in enumerate([0.1, 0.5, 0.9] * 4)]


@pytest.mark.parametrize(
    ("loss", "cycle", "says"),
    [
        (ZIGZAG, 3, "the loss on attacked batches, the mean of a cycle of 3 steps (bold), rises from 0.51 to 0.6"),
        ([0.9, 0.1, 0.85, 0.05], 2, "(bold), falls from 0.5 to 0.45"),
        ([0.9, 0.1, 0.9, 0.1], 2, "(bold), stays at 0.5"),
        ([0.1, 0.9, 0.2], 2, "the loss is not compared, as there are less than two cycles of 2 steps, and ϖ"),
        ([0.5, 0.4], 1, "the loss on attacked batches falls from 0.5 to 0.4"),
        ([0.4, 0.6, *[0.1] * 17, 0.3], 1, "attacked batches, the mean of 2 steps, falls from 0.5 to 0.2"),
        ([0.5], 1, "Over 1 step of Adv-NTK the loss on attacked batches stays at 0.5"),
    ],
)
def test_losses_of_whole_cycles_are_compared(loss: list[float], cycle: int, says: str) -> None:
    assert says in training_caption(history(loss, cycle))


@pytest.mark.parametrize(("cycle", "lines"), [(3, 2), (1, 1), (7, 1)])
def test_the_mean_of_a_pass_is_drawn_over_the_steps(cycle: int, lines: int) -> None:
    drawn = training_figure(history(ZIGZAG, cycle)).axes[0].get_lines()
    assert len(drawn) == lines
    if lines == 2:
        assert np.ptp(np.diff(np.asarray(drawn[1].get_ydata()))) < 1e-12  # the zigzag is gone


def test_running_means() -> None:
    assert running_mean(np.array([1.0, 2.0, 6.0]), 2).tolist() == [1.5, 4.0]
    assert running_mean(np.array([1.0]), 2).tolist() == []
    assert running_mean(np.array([1.0]), 5).tolist() == []


@pytest.mark.parametrize(
    ("shortest", "varpi", "says", "never"),
    [
        (0.05, [0.05, 0.1, 0.3], "(up to 0.3, 3 times the median of all) and the shortest (from 0.05, 0.5", "left out"),
        (1e-6, [1e-6, 0.1, 0.3], "class and ϖ above each: the shortest are all but left out.", "learns most"),
        (0.0, [0.0, 0.0, 0.3], "(up to 0.3) and the shortest (from 0), class", "median"),
    ],
)
def test_only_what_is_next_to_nothing_is_left_out(shortest: float, varpi: list[float], says: str, never: str) -> None:
    image, label = np.zeros((1, 8, 8, 1)), np.array([0])
    ends = Extremes(*(TimedImages(image, np.array([time]), label) for time in (0.3, shortest)))
    words = extremes_caption(ends, np.array(varpi))
    assert says in words
    assert never not in words


def row(t: float | None, robust: float) -> dict[str, Any]:
    return {"t": t, "robust": robust, "robust_low": robust - 0.05, "robust_high": robust + 0.05, "n_test": 60}


def dynamics(start: float, stop: float, end: float, adversarial: float | None = None) -> Flows:
    stops: dict[Literal["standard", "adversarial"], float] = {"standard": stop, "adversarial": adversarial or stop}
    return {
        name: {
            "early_stopping": {"t": 0.1, "effective_time": 0.3, "test_robust": at},
            "rows": [row(0.001, start), row(0.1, at), row(1.0, 0.9), row(None, end)],
        }
        for name, at in stops.items()
    }


@pytest.mark.parametrize(
    ("flows", "says"),
    [
        (dynamics(0.1, 0.4, 0.2), "in standard training it rises from 10.0% to 40.0% where validation says to stop"),
        (dynamics(0.1, 0.4, 0.2), "has 20.0%: robust overfitting, beyond the 95% intervals."),
        (dynamics(0.25, 0.2, 0.15), "it goes, inside the 95% intervals, from 25.0% to 20.0%"),
        (dynamics(0.25, 0.2, 0.15), "a loss inside the 95% intervals of 60 images, so robust overfitting is not shown"),
        (dynamics(0.4, 0.2, 0.3), "it falls from 40.0% to 20.0%"),
        (dynamics(0.4, 0.2, 0.3), "no robust overfitting on these images at this radius"),
        (dynamics(0.2, 0.2, 0.2), "in adversarial training it stays at 20.0%"),
        (dynamics(0.1, 0.4, 0.2, 0.25), "robust overfitting beyond the 95% intervals in standard training alone"),
    ],
)
def test_dynamics_are_told_as_they_go(flows: Flows, says: str) -> None:
    words = dynamics_caption(flows)
    assert says in words
    assert "first rises" not in words
