"""The outcome of each test image of a finished run, read from what it committed; its data are not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advntk_dist.config import RunConfig
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.evaluate import COLUMNS
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.pipeline.solving import ADV_NTK
from advntk_dist.storage import Records
from advntk_dist.storage.records import read_group


@dataclass(frozen=True)
class TestOutcomes:
    """Outcomes of each method, and what they are outcomes of.

    Attributes
    ----------
    images
        What decides on the test images and on their attack: equal where two runs met the same.
    methods
        The methods of results.json.
    """

    __test__ = False  # no test, whatever pytest makes of the name

    images: dict[str, Any]
    methods: dict[str, MethodResult]


def outcome_names(config: RunConfig, stopped: int) -> dict[str, str]:
    """The name of each method's committed outcomes; ``stopped`` is the index of the time of early stopping."""
    return {
        "ntk": f"test_t{len(config.evaluation.times)}",
        "early_stopped": f"test_t{stopped}",
        ADV_NTK: f"test_{ADV_NTK}",
    }


def read_outcomes(folder: RunDirectory, config: RunConfig, stopped: int) -> TestOutcomes | None:
    """Outcomes under the run's own attack; None where they are not in the directory, as beside a copied report.

    Raises
    ------
    StoreError
        If they are there and damaged.
    """
    place = folder.evaluation / config.attack.label
    if not place.exists():
        return None
    group, identity = read_group(place)
    methods = {}
    for method, name in outcome_names(config, stopped).items():
        if name not in group:
            return None
        records = Records(group, name, config.data.n_test, (len(COLUMNS),), span=config.evaluation.batch)
        if (table := records.read_all()) is None:
            return None
        methods[method] = MethodResult.of(table[:, 0], table[:, 1], float(table[:, 2].max()))
    split = config.data.model_dump(mode="json", exclude={"name", "path"})
    return TestOutcomes({"data": identity["data"], "split": split, "attack": identity["attack"]}, methods)
