"""What a run is expected to take, by stage: counts of the configuration times the table of unit costs.

Everything is a closed form. The work of a build, and of evaluation, is divided by the workers that share it; beside
them, the slowest of what they all wait for (writing, the links of the nodes, the store) sets the pace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from advntk_dist.config import RunConfig
from advntk_dist.evaluation.cost import WORTH, BatchSeconds, Priced, predict_cost
from advntk_dist.evaluation.radius_curve import CHECKED
from advntk_dist.evaluation.tiers import tier_attacks
from advntk_dist.grid import TileGrid
from advntk_dist.kernels.compiled import block_edge
from advntk_dist.operators.placement import CORES_A_HOLDER
from advntk_dist.operators.resident import rows_sent
from advntk_dist.operators.tiled import RUN_TILES
from advntk_dist.planning.calibration import LIMIT_POWER, Calibration, UnitCosts, varpi_after
from advntk_dist.planning.cluster import Cluster, OperatorPlan, operator_plan
from advntk_dist.planning.counts import Counts, Outlook, count, longest, step_images

START, COMPUTE, IDLE, WRITE, LINK, STORE = (
    "start and stop of Ray",
    "kernels",
    "idle at the last tiles",
    "writing in the actors",
    "link of a node to the store",
    "store write bandwidth",
)
"""Parts of a build."""

STAGES = ("gram", "solve", "select", "train", "evaluate")

PASSES, ALGEBRA = "passes over the matrix", "vectors in the driver"
"""Parts of a solve: products with the matrix, and everything that the driver does with tall blocks of vectors."""

_GB = 1e9
_SAMPLED_STEPS = 8
_CHECKPOINT_ROWS = 3
_TRAIN_TABLES = 5
_SOLVE_TABLES = 3
_SCORING_TABLES = 3
"""Tables that a stage, or each scored part, opens or makes: small runs spend a noticeable time on it."""

Parts = dict[str, float]


def build_pairs(n: int, tile: int, edge_limit: int) -> int:
    """Kernel values that a symmetric build computes: whole blocks, without those that mirror others.

    ``n`` images are cut into tiles of ``tile`` rows, and these into blocks of an edge up to ``edge_limit``.
    """
    edge = block_edge(min(tile, n), edge_limit)
    # With b blocks along the tiles together, every pair of different blocks is met once, and every block with itself.
    along = n // tile * -(-tile // edge) + -(-(n % tile) // edge)
    return along * (along + 1) // 2 * edge**2


def build_seconds(
    grid: TileGrid, itemsize: int, workers: int, cluster: Cluster, costs: UnitCosts, edge_limit: int
) -> Parts:
    """Seconds of a Gram build by ``workers`` actors, by what they are spent on.

    Entries have ``itemsize`` bytes, and tiles are padded to whole blocks of an edge up to ``edge_limit``. A rate of the
    cluster that is not known costs nothing.
    """
    nodes, tiles = min(workers, cluster.nodes), len(grid)
    # Actors that share a core share its time, and import and compile one after the other; a GPU is one actor's alone.
    shared = 1.0 if cluster.gpus else max(1.0, math.ceil(workers / nodes) / cluster.cpus)
    tile = min(grid.tile, grid.rows)
    nbytes = tiles * tile**2 * itemsize  # a ragged tile is stored padded
    compute = build_pairs(grid.rows, grid.tile, edge_limit) * costs.pair * shared
    # A tile moves twice, as it is read back once it is written.
    ways = {
        COMPUTE: compute / workers,
        WRITE: nbytes * costs.write_byte * shared / workers,
        LINK: 2 * nbytes * _seconds_a_byte(cluster.node_link) / nodes,
        STORE: 2 * nbytes * _seconds_a_byte(cluster.shared_store),
    }
    slowest = largest(ways)
    parts = {START: costs.start * shared + costs.stop, slowest: ways[slowest]}
    if slowest in (COMPUTE, WRITE):  # some workers have one tile more than the others
        parts[IDLE] = ways[slowest] * (math.ceil(tiles / workers) * workers / tiles - 1)
    return parts


def pass_seconds(
    operator: OperatorPlan, grid: TileGrid, cluster: Cluster, columns: int, entry: float, read_byte: float
) -> Parts:
    """Seconds of one product Theta V, by what they are spent on.

    On one machine a core computes while the disk reads, and the slower of them counts. Resident tiles are multiplied
    where they are; before that every node gets the vectors in both memory orders, and after it every holder sends back
    the rows of the product that its tiles touch: these follow each other. A network whose rate is not known costs
    nothing.

    V has ``columns`` columns; an entry of the matrix takes ``entry`` seconds on one core, and a byte that is read from
    the store ``read_byte``.
    """
    n = grid.rows
    compute = entry * n**2 / operator.cores
    if operator.name != "resident":
        read = read_byte * operator.stored_bytes if operator.from_disk else 0.0
        return {"pass read bandwidth": read} if read > compute else {"pass compute": compute}
    count, block = holders(grid, cluster), 8 * n * columns
    hops = math.ceil(math.log2(cluster.nodes)) if cluster.nodes > 1 else 0
    sent = 8 * rows_sent(grid, count) * columns
    byte = _seconds_a_byte(cluster.network)
    return {
        "pass compute": compute * max(1.0, operator.cores / (CORES_A_HOLDER * count)),
        "vectors to the nodes": hops * 2 * block * byte,
        "partial products to the driver": sent * (cluster.nodes - 1) / cluster.nodes * byte,
    }


def holders(grid: TileGrid, cluster: Cluster) -> int:
    """Actors that hold resident tiles: one for every four cores, as far as there are runs of tiles for them."""
    wanted = cluster.nodes * max(1, -(-cluster.cpus // CORES_A_HOLDER))
    across = grid.shape[1]
    return min(wanted, sum(-(-(across - i) // RUN_TILES) for i in range(across)))


def largest(parts: Mapping[str, float]) -> str:
    """The part that takes the most seconds."""
    return max(parts, key=lambda name: parts[name])


def _seconds_a_byte(rate: float | None) -> float:
    return 0.0 if rate is None else 1 / (_GB * rate)


def outlook(config: RunConfig, calibration: Calibration) -> Outlook:
    """Which images will be attacked, as the pilot's accuracies have it."""
    n, classes, pilot = config.data.n_train, calibration.images.classes, calibration.pilot
    at = tuple(pilot.right(t * n, n, classes) for t in config.evaluation.times)
    trained = pilot.right(varpi_after(config, config.train.steps) * n, n, classes)
    # Which time will be most robust is not known; the middle of the grid stands for it.
    return Outlook(at, at, pilot.right(float("inf"), n, classes), trained, len(at) // 2)


def predict(config: RunConfig, cluster: Cluster, calibration: Calibration) -> tuple[Counts, Prediction]:
    """Counts and seconds of a run on a cluster whose cores and GPUs are taken to be like those that were measured."""
    made = _Predictor(config, cluster, calibration)
    return made.counts, made.prediction()


class _Predictor:
    def __init__(self, config: RunConfig, cluster: Cluster, calibration: Calibration) -> None:
        self.config, self.cluster, self.measured, self.costs = config, cluster, calibration, calibration.costs
        self.n = config.data.n_train
        self.grid = TileGrid.square(self.n, min(config.gram.tile, self.n))
        self.operator = operator_plan(config, cluster)
        self.outlook = outlook(config, calibration)
        self.counts = count(config, calibration.images, cluster.workers_of_a_node(config.gram.workers), self.outlook)
        self.classes, self.actors = calibration.images.classes, cluster.evaluators(config)
        # The driver's kernels use all cores of its machine, or its GPU; an actor has one core, or one GPU.
        gpu = calibration.platform == "gpu"
        self.driver = 1.0 if gpu else calibration.cores / cluster.cpus
        self.actor = 1.0 if gpu else float(calibration.cores)
        # Batches are evaluated by the actors, or else by the driver; those of training always by the driver.
        self.evaluator = self.actor if self.actors else self.driver

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
        passes = {
            "uniform": pilot.passes(last * self.n),
            "infinity": max(0.0, self._infinite_passes() - pilot.passes(last * self.n)),
            "train": self.config.train.steps * 2 * self._step_mean(pilot.passes),
        }
        left_out = None if worth else tier
        return Prediction(seconds, parts, passes, self._pass(self.classes), left_out, self.cluster.unknown_links)

    def _gram(self) -> Parts:
        size, workers = np.dtype(self.config.gram.dtype).itemsize, self.cluster.workers(self.config.gram.workers)
        return build_seconds(self.grid, size, workers, self.cluster, self.costs, self.measured.edge_limit)

    @property
    def _read_byte(self) -> float:
        """Seconds a byte of the store that one process reads."""
        return max(self.costs.read_byte, _seconds_a_byte(self.cluster.node_link))

    def _pass(self, columns: int) -> Parts:
        """One product with so many vectors; the seconds of an entry are measured with all cores of a machine."""
        core = self.costs.entry * self.measured.cores
        return pass_seconds(self.operator, self.grid, self.cluster, columns, core, self._read_byte)

    def _solve(self) -> Parts:
        c, n = self.costs, self.n
        times = self.config.evaluation.times
        held = c.hold_entry * n**2 if self.operator.name == "memory" else 0.0
        finite = sum(self._basis(times[-1] * n).values())
        return {
            "reading the matrix": self.counts.gram.tiles * c.read_tile + held,
            "finite times": finite,
            "t = infinity": max(0.0, self._infinite() - finite),  # the same basis, which goes on growing
            "checkpoints": 2 * (len(times) + 1) * c.commit + _SOLVE_TABLES * c.table,
        }

    def _basis(self, strength: float) -> Parts:
        """Seconds of one Krylov basis, in passes and beside them."""
        pilot, one = self.measured.pilot, sum(self._pass(self.classes).values())
        return {PASSES: pilot.passes(strength) * one, ALGEBRA: pilot.rest(strength, self.n, self.costs.entry)}

    def _infinite_passes(self) -> float:
        whole = self.measured.pilot.whole
        return whole.infinite_passes * float(max(1.0, self.n / whole.n) ** LIMIT_POWER)

    def _infinite(self) -> float:
        """Seconds of the basis that serves all times and infinity."""
        c, n, whole = self.costs, self.n, self.measured.pilot.whole
        passes = self._infinite_passes()
        in_passes = whole.infinite_passes * c.entry * whole.n**2
        rest = max(0.0, whole.infinite_seconds - in_passes) * n / whole.n * passes / max(1.0, whole.infinite_passes)
        one = sum(self._pass(self.classes).values())
        return passes * one + rest

    def _batch(self, share: float) -> BatchSeconds:
        """Seconds of the passes of a batch where they take ``share`` times what they took on the measured machine."""
        one = self.costs.batch_seconds(self.config.evaluation.batch, self.n)
        return BatchSeconds(one.batch, one.query_seconds * share, one.step_seconds * share)

    def _attack(self, share: float, *, training: bool = False) -> float:
        """Seconds in which the run's own attack, or its form in training, is made on a batch; ``share`` as above."""
        attack, batch = self.config.attack, self._batch(share)
        if training and attack.spec.training_passes is not None:
            return batch.of(attack.spec.training_passes)
        asked = attack.spec.cost(attack)
        step = self.costs.step * batch.batch * self.n * share
        compared = asked.queries - 1 if asked.steps else 0  # the last one is counted among the predictions
        return attack.restarts * self.costs.attack + asked.units * step + compared * batch.query_seconds

    def _scored(self, stage: str) -> Parts:
        c, scored, parts = self.costs, getattr(self.counts, stage), self.counts.scorings[stage]
        batches, attacked, begin = scored.batches, scored.attacked_batches, 0.0
        compilation = c.prepare + c.first_query + c.first_attack
        if self.actors:
            batches, attacked = longest(parts, self.config.evaluation.batch, self.actors)
            begin = c.start
        if stage == "select":  # the process compiles them once; actors do in each stage, as they are new
            begin += compilation
        elif self.actors:
            begin += compilation * self.actor
        parts_of_stage = {"radius curve": self._radius_curve()} if stage == "evaluate" else {}
        return parts_of_stage | {
            "attacks": attacked * self._attack(self.evaluator),
            "predictions": (batches + attacked) * self._batch(self.evaluator).query_seconds,
            "checkpoints": scored.batches * c.commit + _SCORING_TABLES * len(parts) * c.table,
            "start and compilation": begin,
        }

    def _radius_curve(self) -> float:
        """Seconds of the derivatives of the three methods, and of the attack at each radius that is checked."""
        batch, size = self._batch(self.evaluator), self.config.evaluation.batch
        images = self.config.evaluation.curve or self.config.data.n_test
        one = size * self.n * self.costs.jacobian * self.evaluator + len(CHECKED) * batch.query_seconds
        every = [-(-images // size) * (batch.query_seconds + right * one) for right in self.outlook.methods]
        return sum(every) / (self.actors or 1)

    def _tier(self) -> float | None:
        """Seconds of the tier that ends the run on all three methods; None where none is wanted.

        How many images its first attacks leave is not known; half of those that are classified correctly stand for it.
        """
        wanted = self.config.final_tier
        if wanted is None:
            return None
        (tier, images), c = wanted, self.costs
        priced = [Priced.of(a) for a in tier_attacks(tier, self.config.attack, self.classes)]
        batch, workers = self._batch(self.evaluator), self.actors or 1
        rights = self.outlook.methods
        costs = [predict_cost(priced, images, batch, workers=workers, clean=r, robust=r / 2) for r in rights]
        compilation = 2 * (c.first_query + c.first_attack) * (self.actor if self.actors else 1)
        return sum(cost.seconds for cost in costs) + compilation

    def _train(self) -> Parts:
        c, t, n = self.costs, self.config.train, self.n
        pairs = n * sum(steps * images for steps, images in step_images(self.config))
        twins = 1 if t.recipe == "paper" else 2  # clean images are predicted beside attacked ones
        return {
            "attacks": self.counts.train.attacked_batches * self._attack(self.driver, training=True),
            "kernels of attacked images": twins * pairs * c.value * self.driver,
            **self._step_solves(),
            **self._loading(),
            "checkpoints": t.steps * _CHECKPOINT_ROWS * c.commit + _TRAIN_TABLES * c.table,
            "start and compilation": c.first_query,
        }

    def _step_solves(self) -> Parts:
        """Solves and gradients of all steps, and the solve after the last.

        A step takes two bases; what else it took in the pilot, the gradient above all, is with vectors, and grows like
        n as they do.
        """
        t, n = self.config.train, self.n
        last, pilot = self._basis(varpi_after(self.config, t.steps) * n), self.measured.pilot
        gradient = max(0.0, pilot.step_ratio - 2) * self.costs.entry * pilot.whole.n * n

        def passes(strength: float) -> float:
            return 2 * self._basis(strength)[PASSES]

        def algebra(strength: float) -> float:
            return pilot.step_ratio * self._basis(strength)[ALGEBRA] + gradient * pilot.passes(strength)

        return {
            PASSES: t.steps * self._step_mean(passes) + last[PASSES],
            ALGEBRA: t.steps * self._step_mean(algebra) + last[ALGEBRA],
        }

    def _loading(self) -> Parts:
        """Resident tiles are read from the store once, by all nodes together."""
        if self.operator.name != "resident":
            return {}
        byte = max(_seconds_a_byte(self.cluster.shared_store), self._read_byte / self.cluster.nodes)
        return {"loading resident tiles": self.operator.stored_bytes * byte}

    def _step_mean(self, value: Callable[[float], float]) -> float:
        """Mean over training steps of something that depends on the strength of varpi; the first has varpi = 0."""
        steps = self.config.train.steps
        sampled = np.unique(np.linspace(1, max(1, steps - 1), min(_SAMPLED_STEPS, steps)).astype(int))
        mean = float(np.mean([value(varpi_after(self.config, int(s)) * self.n) for s in sampled]))
        return mean * (steps - 1) / steps if self.config.train.recipe == "paper" else mean


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
        Over the Gram matrix: of the longest uniform solve, what t = infinity adds, and of all training steps together.
    a_pass
        Seconds of one pass with as many vectors as classes, by what they are spent on.
    tier_left_out
        Seconds of the tier that would end the run, where it is too dear for that; otherwise None.
    unknown
        Options of the rates that are left out, because neither a measurement nor the user has told them; with any of
        them the seconds are a lower bound.
    """

    seconds: dict[str, float]
    parts: dict[str, Parts]
    passes: dict[str, float]
    a_pass: Parts
    tier_left_out: float | None
    unknown: tuple[str, ...]

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
        a_pass = largest(self.a_pass)
        parts = {stage: largest(parts) for stage, parts in self.parts.items()}
        named = {stage: f"{part}: {a_pass}" if part == PASSES else part for stage, part in parts.items()}
        return named | {"pass": a_pass}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"total": self.total, "bottlenecks": self.bottlenecks}
