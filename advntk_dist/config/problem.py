"""What is computed: the images, the network, the Gram matrix and how it is solved with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, Field, field_validator

from advntk_dist.config.values import Positive, Section, Seed, no_bool
from advntk_dist.errors import NetworkError
from advntk_dist.spec import Activation, BackendChoice, parse_name


class DataConfig(Section):
    """Which images, and how many of them."""

    name: str = "digits"
    """A dataset's name, or a path."""
    path: str | None = None
    """Folder or archive of the dataset, where the name alone does not say."""
    n_train: Annotated[int, Field(ge=2)] = 1000
    """Training images, the rows of the Gram matrix."""
    n_val: Annotated[int, Field(ge=1)] = 300
    """Validation images, on which early stopping chooses."""
    n_test: Annotated[int, Field(ge=1)] = 497
    """Test images, of which the results are."""
    seed: Seed = 0
    """Seed of the split into training, validation and test images."""
    resize: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Edge in pixels that images are brought to: shorter side scaled, antialiased, then the middle square."""
    class_subset: Annotated[tuple[str | Annotated[int, Field(ge=0)], ...], Field(strict=False)] | None = None
    """Names or numbers of the classes to keep; by default all."""
    duplicates: Literal["warn", "drop", "refuse"] = "warn"
    """What to do with equal images: warn, drop (before the split is drawn; the first one stays), or refuse."""

    @field_validator("class_subset")
    @classmethod
    def _two_classes(cls, classes: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("names a class twice")
        if classes is not None and len(classes) < 2:
            raise ValueError("must be at least two classes")
        return classes


class NetworkConfig(Section):
    """The infinitely wide network."""

    name: str = "mlp-3"
    """mlp-x, cnn-x, resnet-18, resnet-34, or package.module:function."""
    W_std: Positive = 1.76
    """Standard deviation of the weights."""
    b_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.18
    """Standard deviation of the biases."""
    activation: Activation = "relu"
    """relu, gelu, erf or sigmoid."""
    backend: BackendChoice = "auto"
    """What computes the kernel: neural-tangents or xla; auto takes the fastest that can."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            parse_name(name)
        except NetworkError as error:
            raise ValueError(str(error).removeprefix("network.name: ")) from error
        return name


class GramConfig(Section):
    """How the Gram matrix is computed and stored."""

    tile: Annotated[int, Field(ge=1)] = 2048
    """Edge of a tile, in images."""
    dtype: Literal["float32", "float64"] = "float32"
    """What the kernel is computed and stored in: float32 or float64."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Ray actors; by default one a GPU, or one a CPU where there is none."""


class SolverConfig(Section):
    """How products with the Gram matrix become coefficients."""

    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Bound on the relative error of coefficients, Frobenius norm."""
    memory: Annotated[ByteSize, BeforeValidator(no_bool), Field(gt=0)] = ByteSize(4 * 2**30)
    """Memory for the matrix (held whole if it fits half of this) and for Krylov bases; "4GiB" is understood."""
    ridge: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Added to the diagonal at t = infinity, relative to the mean of the diagonal."""
    max_passes: Annotated[int, Field(ge=1)] = 1000
    """Passes over the matrix after which a solve gives up."""
    operator: Literal["auto", "memory", "threads", "dask-on-ray", "resident"] = "auto"
    """Where products with the matrix are computed; auto chooses from the memory there is."""
