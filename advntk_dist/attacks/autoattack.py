"""AutoAttack's own code (Croce & Hein 2020, github.com/fra31/auto-attack) against any differentiable predictor.

It needs PyTorch and the package ``autoattack``, neither of which is a dependency: without them a call says how to get
them. A predictor becomes a PyTorch function whose backward pass asks for exact input gradients.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from advntk_dist.attacks.base import LOW, DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.geometry import project
from advntk_dist.attacks.losses import SPREAD
from advntk_dist.attacks.request import check_request, labels_of
from advntk_dist.errors import RequestError

NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def autoattack(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    norm: Norm = "linf",
    seed: int = 0,
    batch: int = 128,
    version: str = "standard",
    attacks: list[str] | None = None,
    verbose: bool = False,
    log_path: str | None = None,
) -> Images:
    """Run AutoAttack, on the CPU for what is PyTorch and wherever the predictor computes for the rest.

    Outputs are multiplied by one number for all images, so that the median spread of the clean ones is that of
    trained networks: its cross-entropy has no scale of its own choosing. Unlike the attacks of this package its random
    numbers depend on how images are batched.

    Parameters
    ----------
    predictor, x, y, radius, norm, seed
        As for :func:`advntk_dist.attacks.pgd`.
    batch
        Images at once.
    version
        "standard", or "custom" together with ``attacks``.
    attacks
        Names that AutoAttack gives its parts, as "apgd-ce" or "square"; by default all of the version.
    verbose, log_path
        Whether it prints its progress, and the file that it also writes it to.

    Returns
    -------
    numpy.ndarray
        Perturbed images, shaped as x, floats in [-0.5, 0.5].

    Raises
    ------
    RequestError
        If the packages are missing, or an argument is impossible.
    """
    clean = check_request(x, radius, 0, 0.0, norm)
    _, classes, _ = labels_of(predictor, clean, y, "margin")
    torch, package = _packages()
    spread = float(np.median(np.ptp(predictor.predict(clean), axis=1)))
    model = torch_model(torch, predictor, clean.dtype, SPREAD / spread if spread > 0 else 1.0)
    attack = package.AutoAttack(
        model,
        norm=NAMES[norm],
        eps=radius,
        seed=seed,
        version=version,
        device="cpu",
        verbose=verbose,
        log_path=log_path,
        **({} if attacks is None else {"attacks_to_run": attacks}),
    )
    images = torch.from_numpy(np.ascontiguousarray(clean.transpose(0, 3, 1, 2) - LOW, dtype=np.float32))
    found = attack.run_standard_evaluation(images, torch.from_numpy(classes), bs=batch)
    moved = found.detach().numpy().transpose(0, 2, 3, 1).astype(clean.dtype) + clean.dtype.type(LOW)
    return project(moved, clean, radius, norm)  # the shift by half a range has rounded


def torch_model(torch: Any, predictor: DifferentiablePredictor, dtype: Any, scale: float) -> Any:
    """The predictor as a function of images (m, C, H, W) in [0, 1], differentiable for PyTorch."""

    def images_of(z: Any) -> Images:
        return np.asarray(z.detach().cpu().numpy().transpose(0, 2, 3, 1) + LOW).astype(dtype)

    class Bridge(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(context: Any, z: Any) -> Any:
            context.save_for_backward(z)
            return torch.from_numpy(scale * predictor.predict(images_of(z))).to(z.dtype)

        @staticmethod
        def backward(context: Any, cotangent: Any) -> Any:
            (z,) = context.saved_tensors
            weights = scale * cotangent.detach().cpu().numpy().astype(np.float64)
            gradient = predictor.vjp(images_of(z), weights)
            return torch.from_numpy(np.ascontiguousarray(gradient.transpose(0, 3, 1, 2))).to(z.dtype)

    return Bridge.apply


def _packages() -> tuple[Any, Any]:
    try:
        return importlib.import_module("torch"), importlib.import_module("autoattack")
    except ImportError as error:
        raise RequestError(
            f"attack: AutoAttack is not installed ({error}); pip install torch git+https://github.com/fra31/auto-attack"
        ) from error
