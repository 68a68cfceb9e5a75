"""Networks of finite width, of the same shapes as the infinite ones, in functional form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from advntk_dist.architectures import Parameterization, Triple, build
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.errors import NetworkError
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.spec import Activation, NetworkSpec, parse_name

Params = Any
"""neural-tangents' nested tuples of weights."""


@dataclass(frozen=True)
class FiniteNetwork:
    """A network that can be drawn: hashable, so that programs are compiled once for each.

    Attributes
    ----------
    name
        "mlp-x", "cnn-x", "resnet-18" or "resnet-34".
    width
        Neurons, or channels, of every hidden layer.
    classes, W_std, b_std, activation
        As in :func:`advntk_dist.network`.
    parameterization
        "ntk", as the theory has it, or "standard", as trained networks have it.
    """

    name: str
    width: int
    classes: int
    W_std: float
    b_std: float
    activation: Activation = "relu"
    parameterization: Parameterization = "ntk"

    @classmethod
    def of(cls, spec: NetworkSpec, width: int, trained: AdversarialTrainingConfig | None = None) -> FiniteNetwork:
        """The finite network whose limit is the infinite one of ``spec``; or one drawn as it is trained."""
        if trained is None:
            return cls(spec.name, width, spec.classes, spec.W_std, spec.b_std, spec.activation)
        w_std, b_std, drawn = trained.W_std, trained.b_std, trained.parameterization
        return cls(spec.name, width, spec.classes, w_std, b_std, spec.activation, drawn)

    @property
    def triple(self) -> Triple:
        """neural-tangents' (init_fn, apply_fn, kernel_fn).

        Raises
        ------
        NetworkError
            If the name is an import path, whose widths are fixed.
        """
        return _triple(self)

    def init(self, seed: int, image_shape: tuple[int, ...], dtype: str) -> Params:
        """Weights drawn for a seed: width and seed together key the generator, so that trials are independent."""
        with kernel_scope():
            key = jax.random.fold_in(jax.random.key(seed), self.width)
            _, params = self.triple.init_fn(key, (1, *image_shape))
            return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        """Outputs (m, k) of images (m, H, W, C)."""
        return self.triple.apply_fn(params, x)  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _triple(network: FiniteNetwork) -> Triple:
    known = parse_name(network.name)
    if known is None:
        raise NetworkError(f"network.name: {network.name!r} has no widths to choose; give mlp-x, cnn-x or resnet-x")
    return build(
        *known,
        classes=network.classes,
        W_std=network.W_std,
        b_std=network.b_std,
        activation=network.activation,
        width=network.width,
        parameterization=network.parameterization,
    )


_COLUMNS = 16
"""Columns of the NTK computed at once: each carries a copy of the weights."""


@partial(jax.jit, static_argnums=0)
def empirical_ntk(network: FiniteNetwork, params: Params, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """d f(x1) / d theta . d f(x2) / d theta, (m k, n k), image by image and output by output.

    Column by column through one reverse and one forward pass: the Jacobians, (n k, parameters), are never held.
    """
    outputs = network.classes

    def column(place: jax.Array) -> jax.Array:
        image, output = jnp.divmod(place, outputs)
        one = jax.lax.dynamic_slice_in_dim(x2, image, 1)
        gradient = jax.grad(lambda p: network.apply(p, one)[0, output])(params)
        return jax.jvp(lambda p: network.apply(p, x1), (params,), (gradient,))[1].ravel()

    return jax.lax.map(column, jnp.arange(len(x2) * outputs), batch_size=_COLUMNS).T


@partial(jax.jit, static_argnums=0)
def empirical_ark(network: FiniteNetwork, params: Params, x: jax.Array) -> jax.Array:
    """d f(x) / d x . d f(x) / d x of each image with itself, (n, k, k); its expectation is ARK times the identity."""

    def one(image: jax.Array) -> jax.Array:
        slope: Any = jax.jacrev(lambda z: network.apply(params, z[None])[0])(image)
        flat = slope.reshape(network.classes, -1)
        return flat @ flat.T

    return jax.lax.map(one, x, batch_size=_COLUMNS)
