"""The kernel predictor f(x) = Theta(x, X) c: values and exact input gradients, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import Ascent, DifferentiablePredictor
from advntk_dist.attacks.geometry import Images
from advntk_dist.attacks.on_device import compiled_ascent, compiled_value_and_gradient, compiled_values_and_jacobian
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import SolverError
from advntk_dist.grid import Tile, spans
from advntk_dist.kernels.compiled import pad_rows, stack_blocks
from advntk_dist.kernels.nonfinite import require_finite
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.networks import Network
from advntk_dist.spec import Loss

PART = 4
"""A few images take the time of this part of a batch, in functions that are compiled once more for it."""
MEMORY = 2**29
"""Bytes that the pairs of a batch of images and a block of training images may take, and as much again for what an
attack keeps between the value and the gradient of a step."""


class KernelPredictor(DifferentiablePredictor):
    """A predictor that attacks can differentiate.

    It pickles as its network, training images and coefficients. Training images are prepared once and stay on the
    device; batches and training blocks are padded to fixed shapes, so that each function compiles once, or twice where
    it also meets a few images, and a block is as large as the memory allows. Kernels are computed in the dtype of the
    training images, and meet the coefficients in float64.

    Parameters
    ----------
    net
        The network.
    x_train
        Training images (n, H, W, C): uint8, or floats in [-0.5, 0.5].
    coefficients
        c, (n, k), from :meth:`ATDynamics.coefficients`.
    batch
        Images that go through at once.

    Raises
    ------
    ValueError
        If the coefficients do not have one finite row per training image.
    """

    def __init__(self, net: Network, x_train: ArrayLike, coefficients: ArrayLike, *, batch: int = 128) -> None:
        self._x_train = np.asarray(x_train)
        x = to_unit_range(self._x_train)
        self.net, self.n, self.batch = net, len(x), batch
        self.image_shape, self.dtype = x.shape[1:], x.dtype
        self._block = net.compiled.block_of(self.n, batch, self.image_shape, x.itemsize, MEMORY)
        self._prepared = net.compiled.prepare(x, self._block)
        self._set(coefficients)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of; predictions are the same to the bit on the same kind of processor."""
        return partial(KernelPredictor, batch=self.batch), (self.net, self._x_train, self.coefficients)

    @property
    def x_train(self) -> Images:
        """Training images (n, H, W, C) as floats in [-0.5, 0.5]."""
        return to_unit_range(self._x_train)

    def with_coefficients(self, coefficients: ArrayLike) -> KernelPredictor:
        """The same predictor with other coefficients; the prepared training images are shared."""
        other = object.__new__(KernelPredictor)
        other.__dict__.update(self.__dict__)
        other._set(coefficients)
        return other

    def _set(self, coefficients: ArrayLike) -> None:
        c = np.array(coefficients, dtype=np.float64)
        if c.ndim != 2 or len(c) != self.n or not np.isfinite(c).all():
            raise ValueError(f"coefficients must be {self.n} finite rows, got shape {c.shape}")
        self.coefficients = c
        padded = stack_blocks(c, self._block)
        padded.reshape(-1, self.outputs)[self.n :] = 0.0
        with kernel_scope():
            self._coefficients = jnp.asarray(padded)

    @property
    def outputs(self) -> int:
        """The number of outputs k."""
        return int(self.coefficients.shape[1])

    def _batches(self, images: int) -> Iterator[tuple[slice, int]]:
        """Spans of images, each with the rows that it is padded to: a batch, or a part of one where that is enough."""
        part = self.batch // PART
        for s in spans(images, self.batch):
            yield s, part if s.stop - s.start <= part else self.batch

    def kernel(self, x: ArrayLike) -> NDArray[Any]:
        """Theta(x, X), (m, n), of images x (m, H, W, C) with the training images.

        Raises
        ------
        GramBuildError
            If a value is not finite; the message names the images.
        """
        images = self._images(x)
        out = np.empty((len(images), self.n), self.dtype)
        for s, size in self._batches(len(images)):
            blocks = self.net.compiled.rows(pad_rows(images[s], size), self._prepared)
            for block, columns in zip(blocks, spans(self.n, self._block), strict=True):
                out[s, columns] = block[: s.stop - s.start, : columns.stop - columns.start]
        require_finite("ntk", Tile(0, 0, 0, len(images), 0, self.n), out, symmetric=False)
        return out

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """f(x), (m, k) float64, for images x (m, H, W, C)."""
        images = self._images(x)
        out = np.empty((len(images), self.outputs))
        for s, size in self._batches(len(images)):
            batch = pad_rows(images[s], size)
            out[s] = self.net.compiled.predict(batch, self._prepared, self._coefficients)[: s.stop - s.start]
        return out

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> NDArray[Any]:
        """d sum(cotangent * f(x)) / d x, shaped as x, for a cotangent (m, k)."""
        images = self._images(x)
        u = np.asarray(cotangent, dtype=np.float64)
        if u.shape != (len(images), self.outputs):
            raise ValueError(f"cotangent has shape {u.shape}, f(x) {(len(images), self.outputs)}")
        out = np.empty_like(images)
        for s, size in self._batches(len(images)):
            batch, weight = pad_rows(images[s], size), np.zeros((size, self.outputs))
            weight[: s.stop - s.start] = u[s]
            grad = self.net.compiled.pull_back(batch, self._prepared, self._coefficients, weight)
            out[s] = grad[: s.stop - s.start]
        return out

    def ascend(self, start: Images, clean: Images, wanted: NDArray[np.float64], **how: Unpack[Ascent]) -> Images:
        """The last iterates of projected gradient ascent, as the protocol says, with all steps on the device.

        Images in another dtype than the training images are attacked step by step, in their own dtype.

        Raises
        ------
        SolverError
            If an input gradient was not finite.
        """
        if start.dtype != self.dtype:
            return super().ascend(start, clean, wanted, **how)
        begin, centre = self._images(start), self._images(clean)
        out, finite = np.empty_like(begin), True
        for s, size in self._batches(len(begin)):
            rows = (pad_rows(a[s], size) for a in (begin, centre, wanted, how["towards"]))
            with kernel_scope():
                found, fine = compiled_ascent()(
                    self._prepared,
                    self._coefficients,
                    *rows,
                    how["radius"],
                    how["steps"],
                    how["step_size"],
                    backend=self.net.backend,
                    norm=how["norm"],
                    loss=how["loss"],
                    budget=MEMORY,
                )
            out[s], finite = np.asarray(found)[: s.stop - s.start], finite and bool(fine)
        self._refuse_unless(finite)
        return out

    def value_and_slope(
        self,
        x: ArrayLike,
        wanted: NDArray[np.float64],
        *,
        loss: Loss = "squared-error",
        towards: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Images]:
        """f(x), losses and the gradients of the losses in x, as the protocol says, from one pass over the kernel.

        Gradients are in the dtype of the training images.

        Raises
        ------
        SolverError
            If an input gradient was not finite.
        """
        images = self._images(x)
        f, value, grad = np.empty((len(images), self.outputs)), np.empty(len(images)), np.empty_like(images)
        aims = np.zeros(len(images), np.int64) if towards is None else towards
        for s, size in self._batches(len(images)):
            rows = (pad_rows(a[s], size) for a in (images, wanted, aims))
            with kernel_scope():
                found = compiled_value_and_gradient()(
                    self._prepared, self._coefficients, *rows, backend=self.net.backend, loss=loss, budget=MEMORY
                )
            f[s], value[s], grad[s] = (np.asarray(a)[: s.stop - s.start] for a in found)
        self._refuse_unless(bool(np.isfinite(grad).all()))
        return f, value, grad

    @property
    def shares_gradients(self) -> bool:
        """True of convolutions; MLPs take a product over the pixels more for each output."""
        return self.net.family in ("cnn", "resnet") and self.net.backend.name == "xla"

    @property
    def samples_pixels(self) -> bool:
        """True of MLPs, whose products over the pixels are over those that are asked for."""
        return self.net.family == "mlp" and self.net.backend.name == "xla"

    def value_and_jacobian(
        self, x: ArrayLike, entries: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], Images]:
        """f(x) and the derivatives of every output, as the protocol says, from one pass over the kernel.

        Derivatives are in the dtype of the training images.

        Raises
        ------
        SolverError
            If a derivative was not finite.
        """
        images = self._images(x)
        shape = self.image_shape if entries is None else entries.shape
        f = np.empty((len(images), self.outputs))
        slopes = np.empty((len(images), self.outputs, *shape), self.dtype)
        for s, size in self._batches(len(images)):
            with kernel_scope():
                found = compiled_values_and_jacobian()(
                    self.net.backend, pad_rows(images[s], size), self._prepared, self._coefficients, entries
                )
            f[s], slopes[s] = (np.asarray(a)[: s.stop - s.start] for a in found)
        self._refuse_unless(bool(np.isfinite(slopes).all()))
        return f, slopes

    def _refuse_unless(self, finite: bool) -> None:
        if not finite:
            raise SolverError(
                f"attack: an input gradient of {self.net.name} (backend {self.net.backend.name}) is not finite; "
                "its kernel has no derivative at one of the images: choose another activation or network"
            )

    def _images(self, x: ArrayLike) -> NDArray[Any]:
        images = to_unit_range(np.asarray(x)).astype(self.dtype, copy=False)
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"images have shape {images.shape[1:]}, the training images {self.image_shape}")
        return images
