"""The adversarial regularization kernel Theta_x(x, x) = E || d f(x) / d x ||^2 by an exact forward recursion.

Fu & Wang (2024), section 4; the expectation is over the parameters of the infinitely wide network, f is one output.
At each pixel q of a layer (an MLP has one) three things are carried through the network:

    K(q) = E[h(q)^2],    G(q) = E || d h(q) / d x ||^2,    c(q) = E[h(q) d h(q) / d x] = 1/2 d K(q) / d x.

* Input: K = mean over channels of x(q)^2 and G = 1 (sum over a layer's inputs, divided by how many there are).
* Convolution, 3x3 with zeros around the image: K' = b^2 + W^2 / 9 sum K, G' = W^2 / 9 sum G, c' = W^2 / 9 sum c,
  each sum over the positions of the filter that lie in the image: fewer at the border.
* Dense: K' = b^2 + W^2 K, G' = W^2 G, c' = W^2 c; after Flatten the mean over pixels takes the place of K, G and c.
  (Weights at different pixels and in different branches are independent with mean 0, so no cross terms remain.)
* Activation: (h, d h / d x) is jointly Gaussian, so, with V(K) = E[phi(u)^2] and A(K) = E[phi'(u)^2], u ~ N(0, K),

      K' = V(K),    G' = A(K) G + 2 A'(K) |c|^2,    c' = V'(K) c.

  The second term of G' is there because h and its gradient are correlated. For ReLU it is 0 and A = 1/2 exactly, as
  (h, d h / d x) and (-h, -d h / d x) have the same law. So with ReLU the kernel depends on the architecture alone, not
  on x; for an MLP of depth L it is W^2 (W^2 / 2)^(L - 1).
* Branches of a residual block: the sums of K, G and c.

c is linear in x: c(q) = sum_p J(q, p) x_p with J(q, p) = d K(q) / d s_p, s_p = |x_p|^2, and so
|c(q)|^2 = sum_p s_p J(q, p)^2. No division by K and no square root at 0 occurs: zero images are harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import NetworkError
from advntk_dist.grid import spans
from advntk_dist.kernels.moments import MOMENTS, Moments
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.spec import RESNET_STAGES, Family, NetworkSpec

Array = NDArray[Any]

_BYTES = 2**26
"""Size of the Jacobians J of the images that go through at once."""


@dataclass(frozen=True)
class _State:
    """K, G (b, H, W), J (b, H, W, pixels) and s (b, pixels) of a layer; J is absent where A' vanishes."""

    k: Array
    g: Array
    j: Array | None
    s: Array

    def linear(self, gain: float, bias: float, *, convolution: bool) -> _State:
        """A convolution, or the same matrix at each pixel (a dense layer of an MLP)."""
        k, g, j = (a if a is None or not convolution else _box(a) for a in (self.k, self.g, self.j))
        assert k is not None
        assert g is not None
        return _State(gain * k + bias, gain * g, None if j is None else gain * j, self.s)

    def activation(self, moments: Moments) -> _State:
        """An elementwise nonlinearity."""
        g = moments.slope(self.k) * self.g
        if self.j is None:
            return _State(moments.second(self.k), g, None, self.s)
        squared = np.einsum("bhwp,bp->bhw", self.j**2, self.s)
        g = g + 2 * moments.slope_slope(self.k) * squared
        return _State(moments.second(self.k), g, moments.second_slope(self.k)[..., None] * self.j, self.s)

    def __add__(self, other: _State) -> _State:
        j = None if self.j is None or other.j is None else self.j + other.j
        return _State(self.k + other.k, self.g + other.g, j, self.s)


def ark(spec: NetworkSpec, family: Family, depth: int, x: Array) -> Array:
    """Theta_x(x, x) of a built-in network at images x (n, H, W, C), floats; (n,) in their dtype."""
    if spec.activation == "relu":  # the same for all images of a shape
        return np.repeat(_batch(spec, family, depth, x[:1]), len(x)) if len(x) else np.empty(0, x.dtype)
    pixels = 1 if family == "mlp" else x.shape[1] * x.shape[2]
    rows = max(1, _BYTES // (x.itemsize * pixels**2))
    out = np.empty(len(x), x.dtype)
    for span in spans(len(x), rows):
        out[span] = _batch(spec, family, depth, x[span])
    return out


def _batch(spec: NetworkSpec, family: Family, depth: int, x: Array) -> Array:
    moments, w2, b2 = MOMENTS[spec.activation], spec.W_std**2, spec.b_std**2
    state = _input(x, flatten=family == "mlp", jacobian=spec.activation != "relu")
    if family == "mlp":
        for _ in range(depth - 1):
            state = state.linear(w2, b2, convolution=False).activation(moments)
    elif family == "cnn":
        for _ in range(depth):
            state = state.linear(w2 / 9, b2, convolution=True).activation(moments)
    else:
        state = state.linear(w2 / 9, 0.0, convolution=True)
        for first in _blocks(depth):
            main = state
            for _ in range(2):
                main = main.activation(moments).linear(w2 / 9, 0.0, convolution=True)
            state = main + (state.linear(w2 / 9, 0.0, convolution=True) if first else state)
        state = state.activation(moments)
    return np.asarray(w2 * state.g.mean(axis=(1, 2)), dtype=x.dtype)


def _blocks(depth: int) -> Iterator[bool]:
    """Whether each basic block is the first of its stage."""
    for length in RESNET_STAGES[depth]:
        yield from (place == 0 for place in range(length))


def _input(x: Array, *, flatten: bool, jacobian: bool) -> _State:
    b, height, width, channels = x.shape
    if flatten:
        height, width, channels = 1, 1, height * width * channels
    pixels = height * width
    s = (x.reshape(b, pixels, channels) ** 2).sum(axis=-1)
    j = None
    if jacobian:
        eye = np.eye(pixels, dtype=x.dtype).reshape(1, height, width, pixels) / channels
        j = np.broadcast_to(eye, (b, height, width, pixels))
    return _State((s / channels).reshape(b, height, width), np.ones((b, height, width), x.dtype), j, s)


def _box(a: Array) -> Array:
    """Sums over 3x3 neighbourhoods of (b, H, W, ...) with zeros around the image."""
    for axis in (1, 2):
        total = a.copy()
        lower: list[Any] = [slice(None)] * a.ndim
        upper = list(lower)
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        total[tuple(upper)] += a[tuple(lower)]
        total[tuple(lower)] += a[tuple(upper)]
        a = total
    return a


STEP = 2.0**-9
TOLERANCE = 1e-3
"""Relative difference of two extrapolations above which the ARK is refused."""
_DIRECTIONS = 256


def ark_from_differences(name: str, kernel_fn: Any, x: NDArray[Any]) -> NDArray[np.float64]:
    """Theta_x(x, x) (n,) float64 at images x (n, H, W, C), one image at a time.

    Where the network is not differentiable (ReLU without biases at an all-zero image) the limit of central differences.

    Raises
    ------
    NetworkError
        If the differences do not converge, or are not finite.
    """
    out = np.empty(len(x))
    with kernel_scope():
        for i, image in enumerate(np.asarray(x, dtype=np.float64)):
            sums = [_sum_of_squares(kernel_fn, image, STEP / 2**level) for level in range(3)]
            first = [2 * fine - coarse for coarse, fine in pairwise(sums)]
            value = (4 * first[1] - first[0]) / 3
            if not np.isfinite(value) or abs(value - first[1]) > TOLERANCE * abs(value):
                raise NetworkError(
                    f"network.name: the input gradient of {name!r} has no finite variance at image {i} (differences of "
                    f"its kernel give {first[1]:.6g}, then {value:.6g}); use a network whose outputs are differentiable"
                )
            out[i] = value
    return out


@partial(jax.jit, static_argnums=0)
def _differences(kernel_fn: Any, image: jax.Array, directions: jax.Array) -> jax.Array:
    def of_one(direction: jax.Array) -> jax.Array:
        plus, minus = (image + direction)[None], (image - direction)[None]
        both = jnp.concatenate([plus, minus])
        k = kernel_fn(both, both, "nngp")
        return k[0, 0] - k[0, 1] - k[1, 0] + k[1, 1]

    return jax.vmap(of_one)(directions)


def _sum_of_squares(kernel_fn: Any, image: NDArray[np.float64], step: float) -> float:
    total = 0.0
    for span in spans(image.size, _DIRECTIONS):
        rows = step * np.eye(span.stop - span.start, image.size, k=span.start)
        total += float(_differences(kernel_fn, image, rows.reshape(-1, *image.shape)).sum())
    return total / (2 * step) ** 2
