"""Stand-ins for PyTorch and AutoAttack's package: what ours hands over, without a gigabyte of installation."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Attack = Callable[[Any, Any, str], Any]
"""Called with images (m, C, H, W), labels (m,) and the name of a part: moved images, and the labels it claims."""


class Tensor:
    def __init__(self, array: Any) -> None:
        self.array = array

    def detach(self) -> Tensor:
        return self

    def numpy(self) -> Any:
        return self.array


def stand_in(monkeypatch: pytest.MonkeyPatch, attack: Attack) -> Any:
    """Put them in place; returns the package, whose ``seen`` and ``ran`` say what it was asked."""
    package: Any = types.ModuleType("autoattack")
    package.__file__ = str(Path(__file__))
    package.seen, package.ran = {}, []

    class AutoAttack:
        def __init__(self, _model: Any, **options: Any) -> None:
            if options["version"] == "standard" and "attacks_to_run" in options:
                raise ValueError("attacks_to_run will be overridden unless you use version='custom'")
            package.seen.clear()
            package.seen.update(options)
            self.attacks_to_run = ["apgd-ce", "apgd-t", "fab-t", "square"]

        def run_standard_evaluation(self, images: Tensor, labels: Tensor, bs: int, return_labels: bool) -> Any:
            assert return_labels
            package.seen.update(images=images.array, labels=labels.array, bs=bs)
            package.ran.extend(self.attacks_to_run)
            moved, said = images.array, labels.array
            for part in self.attacks_to_run:
                moved, said = attack(moved, said, part)
            return Tensor(np.clip(moved, 0, 1).astype(np.float32)), Tensor(said)

    def check_square_sr(accuracies: dict[str, float], logger: Any) -> None:
        if accuracies["square"] < min(v for k, v in accuracies.items() if k != "square") - 0.002:
            logger.log("Warning: Square Attack has decreased the robust accuracy")

    package.AutoAttack = AutoAttack
    checks: Any = types.ModuleType("autoattack.checks")
    checks.check_square_sr = check_square_sr
    torch: Any = types.ModuleType("torch")
    torch.from_numpy, torch.__version__ = Tensor, "2.0-stand-in"
    torch.autograd = types.SimpleNamespace(Function=type("Function", (), {"apply": None}))
    for name, module in (("torch", torch), ("autoattack", package), ("autoattack.checks", checks)):
        monkeypatch.setitem(sys.modules, name, module)
    return package
