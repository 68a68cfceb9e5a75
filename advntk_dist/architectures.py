"""The networks of Fu & Wang (2024), section 6, as neural-tangents triples.

MLP-x is Flatten, (Dense, act) x (x - 1), Dense. CNN-x is (3x3 SAME convolution, act) x x, Flatten, Dense.
ResNet-18 and -34 are a 3x3 convolution, pre-activation basic blocks in four stages (the first block of a
stage has a 3x3 convolution as its shortcut, the others the identity), act, Flatten, Dense; every stride is
1, there is no pooling, and only the last layer has a bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from advntk_dist.neural_tangents_adapter import stax
from advntk_dist.spec import RESNET_STAGES, Activation, Family

WIDTH = 256
"""Hidden width of the finite networks that init_fn draws (the paper's); the kernels do not depend on it."""


Parameterization = Literal["ntk", "standard"]
"""neural-tangents' names: weights scaled in the forward pass, or at initialisation as most deep-learning code does."""


class Triple(NamedTuple):
    """neural-tangents' (init_fn, apply_fn, kernel_fn)."""

    init_fn: Callable[..., Any]
    apply_fn: Callable[..., Any]
    kernel_fn: Callable[..., Any]


def _activation(name: str) -> Any:
    layers = {"relu": stax.Relu, "gelu": stax.Gelu, "erf": stax.Erf, "sigmoid": stax.Sigmoid_like}
    return layers[name]()


@dataclass(frozen=True)
class _Layers:
    """How the layers of one network are drawn."""

    W_std: float
    b_std: float
    activation: str
    width: int
    parameterization: Parameterization

    def act(self) -> Any:
        return _activation(self.activation)

    def dense(self, outputs: int) -> Any:
        return stax.Dense(outputs, W_std=self.W_std, b_std=self.b_std, parameterization=self.parameterization)

    def conv(self, *, bias: bool = False) -> Any:
        b_std = self.b_std if bias else None
        return stax.Conv(
            self.width,
            (3, 3),
            padding="SAME",
            W_std=self.W_std,
            b_std=b_std,
            parameterization=self.parameterization,
        )


def _mlp(depth: int, classes: int, make: _Layers) -> Any:
    hidden = [layer for _ in range(depth - 1) for layer in (make.dense(make.width), make.act())]
    return stax.serial(stax.Flatten(), *hidden, make.dense(classes))


def _cnn(depth: int, classes: int, make: _Layers) -> Any:
    hidden = [layer for _ in range(depth) for layer in (make.conv(bias=True), make.act())]
    return stax.serial(*hidden, stax.Flatten(), make.dense(classes))


def _block(make: _Layers, first: bool) -> Any:
    main = stax.serial(make.act(), make.conv(), make.act(), make.conv())
    shortcut = make.conv() if first else stax.Identity()
    return stax.serial(stax.FanOut(2), stax.parallel(main, shortcut), stax.FanInSum())


def _resnet(depth: int, classes: int, make: _Layers) -> Any:
    blocks = [_block(make, first=place == 0) for length in RESNET_STAGES[depth] for place in range(length)]
    return stax.serial(make.conv(), *blocks, make.act(), stax.Flatten(), make.dense(classes))


def build(
    family: Family,
    depth: int,
    *,
    classes: int,
    W_std: float,
    b_std: float,
    activation: Activation,
    width: int = WIDTH,
    parameterization: Parameterization = "ntk",
) -> Triple:
    """Assemble the layers of a named network.

    ``classes``, ``width`` (of hidden layers) and ``parameterization`` are of finite networks; the kernels used here are
    those of the NTK parametrisation.
    """
    makers = {"mlp": _mlp, "cnn": _cnn, "resnet": _resnet}
    return Triple(*makers[family](depth, classes, _Layers(W_std, b_std, activation, width, parameterization)))
