"""The networks of Fu & Wang (2024), section 6, as neural-tangents triples.

MLP-x is Flatten, (Dense, act) x (x - 1), Dense. CNN-x is (3x3 SAME convolution, act) x x, Flatten, Dense.
ResNet-18 and -34 are a 3x3 convolution, pre-activation basic blocks in four stages (the first block of a
stage has a 3x3 convolution as its shortcut, the others the identity), act, Flatten, Dense; every stride is
1, there is no pooling, and only the last layer has a bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from advntk_dist.neural_tangents_adapter import stax
from advntk_dist.spec import RESNET_STAGES, Activation, Family

WIDTH = 256
"""Hidden width of the finite networks that init_fn draws (the paper's); the kernels do not depend on it."""


class Triple(NamedTuple):
    """neural-tangents' (init_fn, apply_fn, kernel_fn)."""

    init_fn: Callable[..., Any]
    apply_fn: Callable[..., Any]
    kernel_fn: Callable[..., Any]


def _activation(name: str) -> Any:
    layers = {"relu": stax.Relu, "gelu": stax.Gelu, "erf": stax.Erf, "sigmoid": stax.Sigmoid_like}
    return layers[name]()


def _conv(W_std: float, b_std: float | None) -> Any:
    return stax.Conv(WIDTH, (3, 3), padding="SAME", W_std=W_std, b_std=b_std)


def _mlp(depth: int, classes: int, W_std: float, b_std: float, activation: str) -> Any:
    hidden = [
        layer
        for _ in range(depth - 1)
        for layer in (stax.Dense(WIDTH, W_std=W_std, b_std=b_std), _activation(activation))
    ]
    return stax.serial(stax.Flatten(), *hidden, stax.Dense(classes, W_std=W_std, b_std=b_std))


def _cnn(depth: int, classes: int, W_std: float, b_std: float, activation: str) -> Any:
    hidden = [layer for _ in range(depth) for layer in (_conv(W_std, b_std), _activation(activation))]
    return stax.serial(*hidden, stax.Flatten(), stax.Dense(classes, W_std=W_std, b_std=b_std))


def _block(W_std: float, activation: str, first: bool) -> Any:
    main = stax.serial(_activation(activation), _conv(W_std, None), _activation(activation), _conv(W_std, None))
    shortcut = _conv(W_std, None) if first else stax.Identity()
    return stax.serial(stax.FanOut(2), stax.parallel(main, shortcut), stax.FanInSum())


def _resnet(depth: int, classes: int, W_std: float, b_std: float, activation: str) -> Any:
    blocks = [_block(W_std, activation, first=place == 0) for length in RESNET_STAGES[depth] for place in range(length)]
    return stax.serial(
        _conv(W_std, None),
        *blocks,
        _activation(activation),
        stax.Flatten(),
        stax.Dense(classes, W_std=W_std, b_std=b_std),
    )


def build(family: Family, depth: int, *, classes: int, W_std: float, b_std: float, activation: Activation) -> Triple:
    """Assemble the layers of a named network; ``classes`` is the number of outputs of finite networks."""
    makers = {"mlp": _mlp, "cnn": _cnn, "resnet": _resnet}
    return Triple(*makers[family](depth, classes, W_std, b_std, activation))
