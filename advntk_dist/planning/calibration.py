"""The table of unit costs: seconds a unit of each kind of work, and how solves behave, as a calibration measured them.

A prediction is this table times the counts of a configuration (:mod:`advntk_dist.planning.counts`); `advntk plan`
measures the table on the machine it runs on, `advntk reproduce` takes the typical one of a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from advntk_dist.attacks.registry import JACOBIAN
from advntk_dist.config import RunConfig
from advntk_dist.errors import RequestError
from advntk_dist.evaluation.cost import BatchSeconds
from advntk_dist.planning.counts import Images
from advntk_dist.spec import RESNET_STAGES, parse_name

LIMIT_POWER = 0.35
"""Passes at t = infinity grow with n to this power: 500 to 4,000 images of CIFAR-10 gave 0.2 to 0.4."""

GROWTH = 0.4
"""varpi after s normalised steps of length lr is about s^0.4 lr / sqrt(n): 0.3 with digits, 0.45 with CIFAR-10."""

_LEARNING = 0.7
"""Of the gain that doubling the images brought from half the pilot to the pilot: what each further doubling brings."""


@dataclass(frozen=True)
class Sample:
    """Solves on the first n training images of a pilot, at the strengths of its grid.

    Attributes
    ----------
    n
        Images.
    passes, seconds, right
        Of one Krylov basis at each strength, and the fraction of validation images that is then classified correctly.
    infinite_passes, infinite_seconds, infinite_right
        The same at t = infinity.
    """

    n: int
    passes: list[float]
    seconds: list[float]
    right: list[float]
    infinite_passes: float
    infinite_seconds: float
    infinite_right: float


@dataclass(frozen=True)
class Pilot:
    """How solves behave on few images, and on half as many.

    A time is given as its strength t n: kernels of n images have n / m times the eigenvalues of those of m, so that a
    solve at the same strength needs about the same passes.

    Attributes
    ----------
    strengths
        Ascending.
    half, whole
        Samples.
    step_ratio
        Seconds of a training step's solves and gradient over those of one basis.
    stand_in
        Whether the images only stand in for those of the run.
    """

    strengths: list[float]
    half: Sample
    whole: Sample
    step_ratio: float
    stand_in: bool

    def passes(self, strength: float) -> float:
        """Passes of a basis that serves a strength."""
        return self._at(strength, self.whole.passes)

    def right(self, strength: float, n: int, classes: int) -> float:
        """Fraction of images that is classified correctly after training n images to a strength (inf for the limit)."""
        if np.isinf(strength):
            small, large = self.half.infinite_right, self.whole.infinite_right
        else:
            small, large = self._at(strength, self.half.right), self._at(strength, self.whole.right)
        doublings = float(np.log2(max(1.0, n / self.whole.n)))
        # Each doubling brings a little less than the one before: a geometric series.
        gain = max(0.0, large - small) * _LEARNING * (1 - _LEARNING**doublings) / (1 - _LEARNING)
        return float(np.clip(large + gain, 1.0 / classes, 1.0))

    def rest(self, strength: float, n: int, a_pass: float) -> float:
        """Seconds of a basis beside its passes, of which one takes ``a_pass`` seconds an entry of the matrix."""
        small, large = (
            self._at(
                strength, [max(0.0, s - p * a_pass * part.n**2) for s, p in zip(part.seconds, part.passes, strict=True)]
            )
            for part in (self.half, self.whole)
        )
        slope = max(0.0, large - small) / max(1, self.whole.n - self.half.n)
        return max(0.0, large + slope * (n - self.whole.n))

    def _at(self, strength: float, values: list[float]) -> float:
        return float(np.interp(np.log(strength), np.log(self.strengths), values))


def varpi_after(config: RunConfig, step: int) -> float:
    """Typical effective time of a sample after some steps of training."""
    t, times = config.train, config.evaluation.times
    if t.recipe == "paper":
        return float(t.lr * max(1, step) ** GROWTH / np.sqrt(config.data.n_train))
    return float(np.sqrt(times[0] * times[-1]))  # it starts from one of the times, which selection will choose


@dataclass(frozen=True)
class UnitCosts:
    """Seconds a unit of work, on the cores or the GPU of one machine where nothing else is said.

    Attributes
    ----------
    start, stop
        From the start of a build to its first worker that is ready, and from its last tile to its end.
    pair
        Kernel value of a pair of images in one worker of a build, while all others work.
    write_byte
        A byte of a tile that one worker writes and checks.
    read_tile
        Opening, reading and checking a small tile.
    value, gradient, jacobian
        A pair of an evaluated and a training image: the value of the predictor, the value with its gradient in the
        evaluated image, and the values with the gradients of all outputs.
    step
        A pair within one step of the run's own attack: ``gradient``, for an attack without gradients the value that one
        of its queries asks for, and making the query, and for one that repeats no step what it took on a batch over
        the passes that it asks for at most.
    attack
        An attack on a batch, beside its steps.
    prepare
        Making the predictor of a run, which compiles too.
    first_query, first_attack
        What the first call takes longer, because it compiles.
    entry, hold_entry
        An entry of the matrix in a pass with as many vectors as classes, and when it is read.
    read_byte
        A byte of a file past the cache.
    table, commit
        Making a table of checkpoints, and writing one checkpoint.
    """

    start: float
    stop: float
    pair: float
    write_byte: float
    read_tile: float
    value: float
    gradient: float
    jacobian: float
    step: float
    attack: float
    prepare: float
    first_query: float
    first_attack: float
    entry: float
    hold_entry: float
    read_byte: float
    table: float
    commit: float

    def batch_seconds(self, batch: int, n: int) -> BatchSeconds:
        """Seconds of the passes of a batch of so many images over n training images."""
        return BatchSeconds(batch, batch * n * self.value, batch * n * self.gradient)


TYPICAL_CORES = 2
"""Cores of the machine that :func:`typical_costs` was measured on."""


def typical_costs(network: str) -> UnitCosts:
    """Unit costs of a network where nothing was calibrated.

    They were measured on two cores with images of CIFAR-10's shape; kernels of convolutions are taken to be in
    proportion to the number of layers. Records: tests/benchmarks/results, kernels-cpu.json and solver.json.
    """
    convolutional, layers = _layers(network)
    if not convolutional:
        value, gradient = 0.03e-6 + 0.001e-6 * layers, 0.055e-6 + 0.005e-6 * layers
    else:
        value, gradient = 1.8e-6 * layers, 5.5e-6 * layers
    return UnitCosts(
        start=9.0,
        stop=1.5,
        pair=TYPICAL_CORES * value,
        write_byte=3e-9,
        read_tile=0.008,
        value=value,
        gradient=gradient,
        jacobian=JACOBIAN * gradient,
        step=gradient,
        attack=0.01,
        prepare=0.4,
        first_query=0.6,
        first_attack=1.5,
        entry=0.8e-9,
        hold_entry=5e-9,
        read_byte=0.8e-9,
        table=0.005,
        commit=0.002,
    )


def typical_at_step(network: str) -> float:
    """Seconds of a step of finite adversarial training, on the machine of :func:`typical_costs`."""
    convolutional, layers = _layers(network)
    return 20.0 * layers if convolutional else 0.06 + 0.002 * layers


def _layers(network: str) -> tuple[bool, int]:
    """Whether a network is convolutional, and the number of its layers; one of a user's own counts as mlp-5."""
    family, depth = parse_name(network) or ("mlp", 5)
    return family != "mlp", 5 + 2 * sum(RESNET_STAGES[depth]) if family == "resnet" else depth


@dataclass(frozen=True)
class Calibration:
    """What was measured of a machine for one network, shape of images and size of batch.

    Attributes
    ----------
    of
        Keys of the configuration that kernels depend on, and their values.
    images
        Shape and classes.
    platform, cores, gpus
        Where kernels ran ("cpu" or "gpu"), and what the machine has.
    edge_limit
        Largest edge of a block of pairs that is computed at once.
    costs
        Seconds a unit of work.
    pilot
        How solves behave.
    environment, load, took
        Versions and machine, load of the machine at start and end, and seconds that all of this took.
    """

    of: dict[str, Any]
    images: Images
    platform: str
    cores: int
    gpus: int
    edge_limit: int
    costs: UnitCosts
    pilot: Pilot
    environment: dict[str, Any]
    load: list[float]
    took: float

    def write(self, path: Path) -> None:
        """Write the JSON.

        Raises
        ------
        RequestError
            If the file cannot be written.
        """
        try:
            path.write_bytes(TypeAdapter(Calibration).dump_json(self, indent=1) + b"\n")
        except OSError as error:
            raise RequestError(f"--save-calibration {path}: cannot be written ({error.strerror or error})") from error

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read the JSON.

        Raises
        ------
        RequestError
            If there is no such file, or it is no calibration.
        """
        try:
            return TypeAdapter(Calibration).validate_json(path.read_bytes())
        except OSError as error:
            raise RequestError(f"--calibration {path}: cannot be read ({error.strerror or error})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise RequestError(
                f"--calibration {path}: not a calibration ({f'{where}: ' if where else ''}{first['msg']}); make one "
                "with `advntk plan ... --save-calibration FILE`"
            ) from error

    def require(self, config: RunConfig, where: str) -> None:
        """Raise RequestError, naming the key, unless this was measured for the kernels of a configuration."""
        wanted = kernel_keys(config)
        for key, value in wanted.items():
            if self.of.get(key) != value:
                raise RequestError(
                    f"{where}: was measured for {key} = {self.of.get(key)!r}, and this is {value!r}; measure again "
                    "with `advntk plan ... --save-calibration FILE` on such a machine"
                )


def kernel_keys(config: RunConfig) -> dict[str, Any]:
    """Keys that the seconds of kernels and the behaviour of solves depend on."""
    found = {f"network.{k}": v for k, v in config.network.model_dump(mode="json").items()}
    found |= {f"attack.{k}": getattr(config.attack, k) for k in ("name", "norm", "loss")}
    found |= {"gram.dtype": config.gram.dtype, "evaluation.batch": config.evaluation.batch}
    found |= {"data.name": config.data.name, "data.resize": config.data.resize}
    subset = config.data.class_subset
    return found | {"data.class_subset": None if subset is None else list(subset)}
