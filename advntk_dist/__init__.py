"""Adversarial training in the infinite-width limit, at full dataset scale.

The names below are the public interface; each is imported when it is first used, so that
``import advntk_dist`` costs nothing. The paper's symbols, and where they are in this package, for n training images,
m other images and k classes:

X, Y            training images (n, H, W, C) and one-hot targets (n, k): ``load_dataset``
Theta           NTK Gram matrix (n, n) of X: ``build_gram``, ``open_gram``, ``operators.GramOperator``
Theta(x, X)     NTK (m, n) of any images: ``networks.Network.ntk``; with gradients in x, ``networks.Network.ntk_vjp``
K               NNGP kernel, the covariance of the outputs at initialisation: ``networks.Network.nngp``
Theta_x         adversarial regularization kernel (ARK), (n,): ``networks.Network.ark``
eta_i(t)        rate of the attack as a gradient flow on image i, argument eta of ``xi``: ``theory.schedules.Schedule``
S               length of that flow, argument inner_time of ``xi``; in the solver, the matrix D^1/2 Theta D^1/2
Xi(t)           diagonal (n,) of effective training times of adversarial training: ``xi``, ``log_xi``
varpi, D        times that Adv-NTK learns, D = Diag(varpi): ``training.CrossFitRecipe``, ``training.PaperRecipe``
f_0(x)          output at initialisation, 0 in expectation
f_t(x)          output (m, k) at time t, f_t(x) = Theta(x, X) c(t): ``KernelPredictor``
c(t), c(varpi)  coefficients (n, k): ``ATDynamics.coefficients``, at many t ``ATDynamics.trajectory``
phi_1(z)        (e^z - 1) / z, by which c(t) needs no inverse: ``solve.phi``
t = infinity    plain kernel regression: numpy.inf as a time, method ntk of ``run``
uniform t       one time for all images (varpi = t), method early_stopped of ``run``
L(varpi)        loss on attacked validation images, and its gradient (n,): ``ATDynamics.loss_and_gradient``
law of f_t      mean and covariance over the infinite ensemble: ``output_law``
exact flow      product of exponentials where Theta Xi'(t) does not commute over time: ``schedule_distance``
radius          largest change of an image by an attack, in the pixel range of 1: ``pgd``, ``apgd``, ``square``
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advntk_dist.attacks.apgd import apgd as apgd
    from advntk_dist.attacks.apgd import apgd_targeted as apgd_targeted
    from advntk_dist.attacks.linear import linear as linear
    from advntk_dist.attacks.pgd import fgsm as fgsm
    from advntk_dist.attacks.pgd import pgd as pgd
    from advntk_dist.attacks.pgd import pgd_reference as pgd_reference
    from advntk_dist.attacks.square import square as square
    from advntk_dist.config import RunConfig as RunConfig
    from advntk_dist.config import load_config as load_config
    from advntk_dist.data import load_dataset as load_dataset
    from advntk_dist.dynamics import ATDynamics as ATDynamics
    from advntk_dist.estimators import AdvNTKClassifier as AdvNTKClassifier
    from advntk_dist.estimators import NTKClassifier as NTKClassifier
    from advntk_dist.gram import GramStore as GramStore
    from advntk_dist.gram import WorkerPool as WorkerPool
    from advntk_dist.gram import build_gram as build_gram
    from advntk_dist.gram import open_gram as open_gram
    from advntk_dist.networks import network as network
    from advntk_dist.pipeline.run import run as run
    from advntk_dist.predictor import KernelPredictor as KernelPredictor
    from advntk_dist.theory.output_law import output_law as output_law
    from advntk_dist.theory.piecewise import schedule_distance as schedule_distance
    from advntk_dist.theory.xi import log_xi as log_xi
    from advntk_dist.theory.xi import xi as xi

# Ray reads these when it is first imported. Under `uv run` it would build each worker an environment of its own.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# Ray would start a worker for each core at once. Ours have an environment of their own, so these would only take time.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")

_HOMES = {
    "ATDynamics": "dynamics",
    "AdvNTKClassifier": "estimators",
    "GramStore": "gram",
    "KernelPredictor": "predictor",
    "NTKClassifier": "estimators",
    "RunConfig": "config",
    "WorkerPool": "gram",
    "apgd": "attacks.apgd",
    "apgd_targeted": "attacks.apgd",
    "build_gram": "gram",
    "fgsm": "attacks.pgd",
    "load_config": "config",
    "load_dataset": "data",
    "linear": "attacks.linear",
    "log_xi": "theory.xi",
    "network": "networks",
    "open_gram": "gram",
    "output_law": "theory.output_law",
    "pgd": "attacks.pgd",
    "pgd_reference": "attacks.pgd",
    "run": "pipeline.run",
    "schedule_distance": "theory.piecewise",
    "square": "attacks.square",
    "xi": "theory.xi",
}

__all__ = [
    "ATDynamics",
    "AdvNTKClassifier",
    "GramStore",
    "KernelPredictor",
    "NTKClassifier",
    "RunConfig",
    "WorkerPool",
    "apgd",
    "apgd_targeted",
    "build_gram",
    "fgsm",
    "linear",
    "load_config",
    "load_dataset",
    "log_xi",
    "network",
    "open_gram",
    "output_law",
    "pgd",
    "pgd_reference",
    "run",
    "schedule_distance",
    "square",
    "xi",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
