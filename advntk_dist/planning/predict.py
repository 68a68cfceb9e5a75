"""What a run is expected to take, by stage: counts of the configuration times what a calibration measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from advntk_dist.config import RunConfig
from advntk_dist.evaluation.cost import WORTH, BatchSeconds, Priced, predict_cost
from advntk_dist.evaluation.tiers import tier_attacks
from advntk_dist.grid import TileGrid
from advntk_dist.planning.build import BuildActors, StageSeconds, simulate_build
from advntk_dist.planning.calibration import RANK_POWER, Calibration
from advntk_dist.planning.cluster import Cluster, Constants
from advntk_dist.planning.counts import Counts, Outlook, count, kernel_blocks, longest, step_images
from advntk_dist.planning.passes import OperatorPlan, matrix_pass, operator_plan
from advntk_dist.planning.pilot import varpi_after
from advntk_dist.solve.memory_budget import MAX_RANK

_SAMPLED_STEPS = 8
_CHECKPOINT_ROWS = 3
_TRAIN_TABLES = 5
_SOLVE_TABLES = 3
_SCORING_TABLES = 3
"""Tables that a stage, or each scored part, opens or makes: small runs spend a noticeable time on it."""


def outlook(config: RunConfig, calibration: Calibration) -> Outlook:
    """Which images will be attacked, as the pilot's accuracies have it."""
    n, classes, pilot = config.data.n_train, calibration.images.classes, calibration.pilot
    at = tuple(pilot.right(t * n, n, classes) for t in config.evaluation.times)
    trained = pilot.right(varpi_after(config, config.train.steps) * n, n, classes)
    # Which time will be most robust is not known; the middle of the grid stands for it.
    return Outlook(at, at, pilot.right(float("inf"), n, classes), trained, len(at) // 2)


def predict(
    config: RunConfig, cluster: Cluster, calibration: Calibration, constants: Constants | None = None
) -> tuple[Counts, Prediction]:
    """Counts and seconds of a run.

    Parameters
    ----------
    config
        Of the run.
    cluster
        Where it will run; its cores and GPUs are taken to be like those that were measured.
    calibration
        Measured for this configuration's kernels.
    constants
        Of the build and of passes; by default what the calibration knows of them, and for a cluster what is assumed.
    """
    made = _Predictor(config, cluster, calibration, constants or Constants.of(calibration, remote=cluster.remote))
    return made.counts, made.prediction()


class _Predictor:
    def __init__(self, config: RunConfig, cluster: Cluster, calibration: Calibration, constants: Constants) -> None:
        self.config, self.cluster, self.measured, self.constants = config, cluster, calibration, constants
        self.n = config.data.n_train
        self.grid = TileGrid.square(self.n, min(config.gram.tile, self.n))
        self.operator: OperatorPlan = operator_plan(config, cluster)
        self.workers = cluster.workers(config.gram.workers)
        local = -(-self.workers // cluster.nodes)
        self.counts = count(config, calibration.images, local, outlook(config, calibration))
        cores, gpu = calibration.cores, calibration.platform == "gpu"
        # The driver's kernels use all cores of its machine, or its GPU; an actor has one core, or one GPU.
        self.driver = 1.0 if gpu else cores / cluster.cpus
        self.actor = 1.0 if gpu else float(cores)

    def prediction(self) -> Prediction:
        parts = {
            "gram": self._gram(),
            "solve": self._solve(),
            "select": self._scored("select"),
            "train": self._train(),
            "evaluate": self._scored("evaluate"),
        }
        total = sum(sum(values.values()) for values in parts.values())
        tier = self._tier()
        worth = tier is not None and (self.config.evaluation.tier != "auto" or tier <= WORTH * total)
        if tier is not None and worth:
            parts["evaluate"]["last tier"] = tier
        seconds = {stage: sum(values.values()) for stage, values in parts.items()}
        pilot, last = self.measured.pilot, self.config.evaluation.times[-1]
        passes = {"uniform": pilot.passes(last * self.n), "infinity": self._infinite_passes()}
        passes["train"] = self.config.train.steps * 2 * self._step_mean(lambda s: pilot.passes(s))
        too_dear = None if worth else tier
        return Prediction(seconds, parts, passes, self._pass(self.measured.images.classes).parts, too_dear)

    def _tier(self) -> float | None:
        """Seconds of the tier that ends the run on all three methods; None where none is wanted.

        How many images its first attacks leave is not known; half of those that are classified correctly stand for it.
        """
        wanted = self.config.final_tier
        if wanted is None:
            return None
        tier, images = wanted
        m, actors = self.measured, self.cluster.evaluators(self.config)
        each = self.actor / self.driver if actors else 1.0
        step = each * (m.host / max(1, self.config.attack.steps) + m.step * self.n / m.rows * self.driver)
        batch = BatchSeconds(self.config.evaluation.batch, each * self._query(), step)
        priced = [Priced.of(a) for a in tier_attacks(tier, self.config.attack, m.images.classes)]
        look = outlook(self.config, m)
        rights = (look.ntk, look.test[look.chosen], look.adv_ntk)
        costs = [predict_cost(priced, images, batch, workers=actors or 1, clean=r, robust=r / 2) for r in rights]
        return sum(cost.seconds for cost in costs) + 2 * (m.first_query + m.first_attack) * (
            self.actor if actors else 1
        )

    def _gram(self) -> dict[str, float]:
        image_bytes = self.counts.gram.image_bytes
        size = np.dtype(self.config.gram.dtype).itemsize
        crew = BuildActors(
            self.workers, min(self.workers, self.cluster.nodes), self.cluster.cpus, self.cluster.gpus > 0
        )
        return simulate_build(self.grid, size, image_bytes, crew, self.constants, self.measured.edge_limit).parts

    def _pass(self, columns: int, entry: float | None = None) -> StageSeconds:
        """One product with so many vectors; ``entry`` is measured with all cores of a node."""
        core = None if entry is None else entry * self.measured.cores
        return matrix_pass(self.operator, self.grid, self.cluster, columns, self.constants, core)

    def _solve(self) -> dict[str, float]:
        m, n = self.measured, self.n
        times = self.config.evaluation.times
        held = m.hold_entry * n**2 if self.operator.name == "memory" else 0.0
        return {
            "reading the matrix": self.counts.gram.tiles * m.read_tile + held,
            "finite times": sum(self._basis(times[-1] * n).values()),
            "t = infinity": self._infinite(),
            "checkpoints": 2 * (len(times) + 1) * m.commit + _SOLVE_TABLES * m.table,
        }

    def _basis(self, strength: float) -> dict[str, float]:
        """Seconds of one Krylov basis, in passes and beside them."""
        m = self.measured
        one = self._pass(m.images.classes).seconds
        return {PASSES: m.pilot.passes(strength) * one, ALGEBRA: m.pilot.rest(strength, self.n, m.entry)}

    def _infinite_passes(self) -> float:
        whole = self.measured.pilot.whole
        return whole.infinite_passes * float(max(1.0, self.n / whole.n) ** RANK_POWER)

    def _infinite(self) -> float:
        m, n, whole = self.measured, self.n, self.measured.pilot.whole
        passes = self._infinite_passes()
        in_passes = (whole.infinite_passes * m.entry + m.sketch_entry) * whole.n**2
        rest = max(0.0, whole.infinite_seconds - in_passes) * n / whole.n * passes / max(1.0, whole.infinite_passes)
        one, sketch = self._pass(m.images.classes), self._pass(min(MAX_RANK, max(1, n // 4)), m.sketch_entry)
        return passes * one.seconds + sketch.seconds + rest

    def _query(self) -> float:
        """Seconds of a batch that is predicted, in the driver."""
        return self.measured.query * self.n / self.measured.rows * self.driver

    def _attack(self) -> float:
        """Seconds of a batch that is attacked, in the driver."""
        m, a = self.measured, self.config.attack
        units = 1 if a.spec.repeated is None else getattr(a, a.spec.repeated)
        one = m.host + units * m.step * self.n / m.rows * self.driver
        return a.spec.tries(a) * one + a.spec.overhead(a) * self._query()

    def _scored(self, stage: str) -> dict[str, float]:
        m, scored = self.measured, getattr(self.counts, stage)
        actors = self.cluster.evaluators(self.config)
        batches, attacked, each, begin = scored.batches, scored.attacked_batches, 1.0, 0.0
        if actors:
            batches, attacked = longest(self.counts.scorings[stage], self.config.evaluation.batch, actors)
            each, begin = self.actor / self.driver, m.start
        if stage == "select":  # the process compiles them once; actors do in each stage, as they are new
            begin += m.prepare + m.first_query + m.first_attack
        elif actors:
            begin += (m.prepare + m.first_query + m.first_attack) * self.actor
        return {
            "attacks": attacked * each * self._attack(),
            "predictions": (batches + attacked) * each * self._query(),
            "checkpoints": scored.batches * m.commit + _SCORING_TABLES * len(self.counts.scorings[stage]) * m.table,
            "start and compilation": begin,
        }

    def _train(self) -> dict[str, float]:
        m, t, n = self.measured, self.config.train, self.n
        blocks = sum(steps * kernel_blocks(images, n, m.edge_limit) for steps, images in step_images(self.config))
        twins = 1 if t.recipe == "paper" else 2  # clean images are predicted beside attacked ones
        return {
            "attacks": self.counts.train.attacked_batches * self._attack(),
            "kernels of attacked images": twins * blocks * m.block * self.driver,
            **self._step_solves(),
            **self._loading(),
            "checkpoints": t.steps * _CHECKPOINT_ROWS * m.commit + _TRAIN_TABLES * m.table,
            "start and compilation": m.first_kernel,
        }

    def _step_solves(self) -> dict[str, float]:
        """Solves and gradients of all steps, and the solve after the last.

        A step takes two bases; what else it took in the pilot, the gradient above all, is with vectors, and grows like
        n as they do.
        """
        m, t, n = self.measured, self.config.train, self.n
        last, pilot = self._basis(varpi_after(self.config, t.steps) * n), m.pilot
        gradient = max(0.0, pilot.step_ratio - 2) * m.entry * pilot.whole.n * n

        def passes(strength: float) -> float:
            return 2 * self._basis(strength)[PASSES]

        def algebra(strength: float) -> float:
            return pilot.step_ratio * self._basis(strength)[ALGEBRA] + gradient * pilot.passes(strength)

        return {
            PASSES: t.steps * self._step_mean(passes) + last[PASSES],
            ALGEBRA: t.steps * self._step_mean(algebra) + last[ALGEBRA],
        }

    def _loading(self) -> dict[str, float]:
        """Resident tiles are read from the store once, by all nodes together."""
        if self.operator.name != "resident":
            return {}
        c, stored = self.constants, self.operator.stored_bytes
        return {"loading resident tiles": stored * max(c.store_byte, c.read_byte / self.cluster.nodes)}

    def _step_mean(self, value: Any) -> float:
        """Mean over training steps of something that depends on the strength of varpi; the first has varpi = 0."""
        steps = self.config.train.steps
        sampled = np.unique(np.linspace(1, max(1, steps - 1), min(_SAMPLED_STEPS, steps)).astype(int))
        mean = float(np.mean([value(varpi_after(self.config, int(s)) * self.n) for s in sampled]))
        return mean * (steps - 1) / steps if self.config.train.recipe == "paper" else mean


STAGES = ("gram", "solve", "select", "train", "evaluate")

PASSES, ALGEBRA = "passes over the matrix", "vectors in the driver"
"""Parts of a solve: products with the matrix, and everything that the driver does with tall blocks of vectors."""


@dataclass(frozen=True)
class Prediction:
    """What a run is expected to take.

    Attributes
    ----------
    seconds
        By stage, as results.json has them.
    parts
        The same, by what they are spent on.
    passes
        Over the Gram matrix: of the longest uniform solve, at t = infinity, and of all training steps together.
    a_pass
        Seconds of one pass with as many vectors as classes, by what they are spent on.
    tier_left_out
        Seconds of the tier that would end the run, where it is too dear for that; otherwise None.
    """

    seconds: dict[str, float]
    parts: dict[str, dict[str, float]]
    passes: dict[str, float]
    a_pass: dict[str, float] = field(default_factory=dict)
    tier_left_out: float | None = None

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def drivers(self, most: int = 3) -> list[tuple[str, str, float]]:
        """What most of the time goes to: (stage, part, share of the total), the largest first."""
        every = [(s, p, v / max(self.total, 1e-9)) for s, parts in self.parts.items() for p, v in parts.items()]
        return sorted(every, key=lambda row: -row[2])[:most]

    @property
    def bottlenecks(self) -> dict[str, str]:
        """The largest part of each stage, and of a pass; where passes are the largest part, that of a pass is named."""
        a_pass = StageSeconds(self.a_pass).bottleneck
        largest = {stage: StageSeconds(parts).bottleneck for stage, parts in self.parts.items()}
        named = {stage: f"{part}: {a_pass}" if part == PASSES else part for stage, part in largest.items()}
        return named | {"pass": a_pass}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"total": self.total, "bottlenecks": self.bottlenecks}
