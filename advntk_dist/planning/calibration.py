"""What was measured of a machine for one network: seconds of the parts of a run, and how its solves behave; as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from advntk_dist.config import RunConfig
from advntk_dist.errors import RequestError
from advntk_dist.planning.counts import Images

RANK_POWER = 0.4
"""Passes at t = infinity grow with n to this power: with a preconditioner of fixed rank the condition number grows like
n, and 1,024 to 48,000 images of CIFAR-10 gave 0.3 to 0.46."""

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


@dataclass(frozen=True)
class Calibration:
    """Measured seconds; of kernels for one network, shape of images and batch.

    Attributes
    ----------
    of
        Keys of the configuration that kernels depend on, and their values.
    images
        Shape and classes.
    platform, cores, gpus
        Where kernels ran ("cpu" or "gpu"), and what the machine has.
    start, stop
        From the start of a build to its first worker that is ready, and from its last tile to its end.
    pair
        A pair of images in a worker, while all others work.
    write_byte
        A byte of a tile, to the disk.
    edge_limit
        Largest block of pairs.
    read_tile
        Opening, reading and checking a small tile.
    rows
        Training images for which the next three were measured; they grow in proportion.
    query, step, host
        A batch: predicted, attacked one step further, and what an attack takes besides.
    prepare
        Making the predictor of a run, which compiles too.
    first_query, first_attack, first_kernel
        What the first call takes longer, because it compiles.
    block
        A block of kernel values between attacked and training images.
    entry, sketch_entry, hold_entry
        An entry of the matrix in a pass with as many vectors as classes, in one with 300, and when it is read.
    read_byte
        A byte of a file past the cache.
    table, commit
        Making a table of checkpoints, and writing one checkpoint.
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
    start: float
    stop: float
    pair: float
    write_byte: float
    edge_limit: int
    read_tile: float
    rows: int
    query: float
    step: float
    host: float
    prepare: float
    first_query: float
    first_attack: float
    first_kernel: float
    block: float
    entry: float
    sketch_entry: float
    hold_entry: float
    read_byte: float
    table: float
    commit: float
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def kernel_keys(config: RunConfig) -> dict[str, Any]:
    """Keys that the seconds of kernels and the behaviour of solves depend on."""
    found = {f"network.{k}": v for k, v in config.network.model_dump(mode="json").items()}
    found |= {f"attack.{k}": getattr(config.attack, k) for k in ("name", "norm", "loss")}
    found |= {"gram.dtype": config.gram.dtype, "evaluation.batch": config.evaluation.batch}
    found |= {"data.name": config.data.name, "data.resize": config.data.resize}
    subset = config.data.class_subset
    return found | {"data.class_subset": None if subset is None else list(subset)}
