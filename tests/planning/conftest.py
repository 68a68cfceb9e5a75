"""A calibration with round numbers: what is predicted from it can be checked by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.config import RunConfig, load_config
from advntk_dist.planning.calibrate import strength_grid
from advntk_dist.planning.calibration import Calibration, Pilot, Sample, UnitCosts, kernel_keys
from advntk_dist.planning.cluster import Cluster
from advntk_dist.planning.counts import Images, Outlook
from tests.filled import no_ray as no_ray
from tests.undrawn import figures_are_undrawn as figures_are_undrawn

DIGITS = Images((8, 8, 1), 10)
HERE = Cluster(1, 2, 0, 24 * 2**30)
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PAIRS = 128 * 1000
COSTS = UnitCosts(
    start=8.0,
    stop=1.0,
    pair=1e-8,
    write_byte=1e-9,
    read_tile=0.001,
    value=0.002 / PAIRS,
    gradient=0.004 / PAIRS,
    jacobian=0.02 / PAIRS,
    step=0.004 / PAIRS,
    attack=0.001,
    prepare=0.25,
    first_query=0.5,
    first_attack=1.0,
    entry=1e-9,
    hold_entry=2e-9,
    read_byte=1e-9,
    table=0.005,
    commit=0.001,
)


def all_attacked(config: RunConfig) -> Outlook:
    """Every image is classified correctly, and so attacked: a bound."""
    ones = (1.0,) * len(config.evaluation.times)
    return Outlook(ones, ones)


@pytest.fixture
def digits() -> RunConfig:
    return load_config("digits")


@pytest.fixture
def calibrated() -> Callable[..., Calibration]:
    """Make a calibration for a configuration, of 128,000 pairs a batch; keywords replace what it measured."""

    def make(config: RunConfig, *, images: Images = DIGITS, **changes: Any) -> Calibration:
        grid = strength_grid(config)
        ramp = [4.0 + 2 * i for i in range(len(grid))]
        sure = [0.3 + 0.5 * i / len(grid) for i in range(len(grid))]
        half = Sample(500, ramp, [0.001 * p for p in ramp], [0.9 * r for r in sure], 30.0, 0.04, 0.7)
        whole = Sample(1000, ramp, [0.002 * p for p in ramp], sure, 32.0, 0.1, 0.8)
        costs = {name: changes.pop(name) for name in list(changes) if hasattr(COSTS, name)}
        made = Calibration(
            of=kernel_keys(config),
            images=images,
            platform="cpu",
            cores=2,
            gpus=0,
            edge_limit=1024,
            costs=dataclasses.replace(COSTS, **costs),
            pilot=Pilot(grid, half, whole, 2.5, False),
            environment={},
            load=[0.5],
            took=10.0,
        )
        return dataclasses.replace(made, **changes)

    return make
