"""AutoAttack's own code (Croce & Hein 2020, github.com/fra31/auto-attack) against any differentiable predictor.

It needs PyTorch and the package ``autoattack``, neither of which is a dependency: without them a call says how to get
them. A predictor becomes a PyTorch function whose backward pass asks for exact input gradients.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import LOW, Images, project
from advntk_dist.attacks.losses import SPREAD
from advntk_dist.attacks.request import AttackRequest
from advntk_dist.errors import RequestError
from advntk_dist.spec import Norm

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
    attacks: Sequence[str] | None = None,
    scale: float | None = None,
    on_flag: Callable[[str], None] = lambda flag: None,
    verbose: bool = False,
    log_path: str | None = None,
) -> Images:
    """Run AutoAttack, on the CPU for what is PyTorch and wherever the predictor computes for the rest.

    Unlike the attacks of this package its random numbers depend on how images are batched.

    Parameters
    ----------
    predictor, x, y, radius, norm, seed
        As for :func:`advntk_dist.attacks.pgd`.
    batch
        Images at once.
    version
        "standard", or "custom" together with ``attacks``.
    attacks
        Names that AutoAttack gives its parts, as "apgd-ce" or "square"; by default all of the version. Of version
        "standard" these parts alone, with the settings that they have there.
    scale
        Number that all outputs are multiplied by, as its cross-entropy has no scale of its own choosing; by default
        :func:`output_scale` of these images.
    on_flag
        Called with each thing that AutoAttack, or this bridge, has to say against the result: zero gradients,
        outputs that look random or like probabilities, too few classes.
    verbose, log_path
        Whether it prints its progress, and the file that it also writes it to.

    Returns
    -------
    numpy.ndarray
        Perturbed images, shaped as x, floats in [-0.5, 0.5]; where no attack succeeds, the images themselves.

    Raises
    ------
    RequestError
        If the packages are missing, or an argument is impossible.
    """
    request = AttackRequest.of(predictor, x, y, radius=radius, steps=0, norm=norm, loss="margin")
    clean, classes = request.clean, request.classes
    torch, package = packages()
    if version == "standard":
        check_outputs(request.wanted.shape[1])
    model = torch_model(torch, predictor, clean.dtype, output_scale(predictor, clean) if scale is None else scale)
    images = torch.from_numpy(np.ascontiguousarray(clean.transpose(0, 3, 1, 2) - LOW, dtype=np.float32))
    with heard(on_flag, show=verbose):
        attack = package.AutoAttack(
            model,
            norm=NAMES[norm],
            eps=radius,
            seed=seed,
            version=version,
            device="cpu",
            verbose=verbose,
            log_path=log_path,
        )
        if attacks is not None:
            attack.attacks_to_run = list(attacks)
        found, said = attack.run_standard_evaluation(
            images, torch.from_numpy(classes), bs=batch, return_labels=True
        )  # fmt: skip
    moved = found.detach().numpy().transpose(0, 2, 3, 1).astype(clean.dtype) + clean.dtype.type(LOW)
    inside = project(moved, clean, radius, norm)  # the shift by half a range has rounded
    right = predictor.predict(inside).argmax(axis=1) == classes
    if lost := int((right & (said.numpy() != classes)).sum()):
        on_flag(f"{lost} images that it counts as broken are classified correctly after rounding, and count as robust")
    return inside


def output_scale(predictor: DifferentiablePredictor, x: Images) -> float:
    """One number for all images x (m, H, W, C) that gives outputs the median spread of trained networks."""
    spread = float(np.median(np.ptp(predictor.predict(x), axis=1)))
    return SPREAD / spread if spread > 0 else 1.0


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


LEAST_OUTPUTS = 10
"""Outputs that its standard version needs: it moves towards nine other classes, whether there are so many or not."""
_FLAG = "Warning: "


def packages() -> tuple[Any, Any]:
    """The modules ``torch`` and ``autoattack``; RequestError, which says how to get them, where one is missing."""
    try:
        import torch  # isort: skip -- what is missing first is said first
        import autoattack as package
    except ImportError as error:
        raise RequestError(
            f"attack: AutoAttack is not installed ({error}); pip install torch git+https://github.com/fra31/auto-attack"
        ) from error
    return torch, package


def package_versions() -> dict[str, str | None]:
    """Versions of both packages, and what tells one state of AutoAttack's code from another: it has no releases."""
    torch, package = packages()
    name = package.__name__
    try:
        version: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:  # its folder is on the path, and nothing is installed
        version = None
    code = hashlib.sha256()
    for file in sorted(Path(package.__file__).parent.glob("*.py")):
        code.update(file.name.encode() + b"\0" + file.read_bytes())
    return {"torch": str(torch.__version__), name: version, f"{name}_sha256": code.hexdigest()}


def check_outputs(outputs: int) -> None:
    """Raise RequestError where the standard version cannot run on a predictor of so many outputs."""
    if outputs < LEAST_OUTPUTS:
        raise RequestError(
            f"attack: AutoAttack's standard version moves towards 9 other classes, and the predictor has {outputs} "
            'outputs; use tier full, or version "custom" with attacks that need no targets'
        )


@contextlib.contextmanager
def heard(on_flag: Callable[[str], None], *, show: bool = False) -> Iterator[None]:
    """Tell the warnings among the lines that it prints, which reach standard output only if they are to be shown."""
    listener = _Listener(sys.stdout if show else None)
    with contextlib.redirect_stdout(listener):
        yield
    for line in listener.getvalue().splitlines():
        if line.startswith(_FLAG):
            on_flag(line.removeprefix(_FLAG))


class _Listener(io.StringIO):
    def __init__(self, through: TextIO | None) -> None:
        super().__init__()
        self._through = through

    def write(self, text: str) -> int:
        if self._through is not None:
            self._through.write(text)
        return super().write(text)


def square_flag(accuracies: Mapping[str, float], on_flag: Callable[[str], None]) -> None:
    """Its own check of the whole result: whether Square breaks what its attacks with gradients do not.

    Parameters
    ----------
    accuracies
        "clean", and the robust accuracy after each part, in order.
    on_flag
        Called with what it says, if anything.
    """
    from autoattack.checks import check_square_sr

    with heard(on_flag):
        check_square_sr(dict(accuracies), logger=SimpleNamespace(log=print))
