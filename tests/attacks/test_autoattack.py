"""The bridge to AutoAttack's own code; the tests that need it are skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist import apgd, square
from advntk_dist.attacks.autoattack import autoattack, package_versions, torch_model
from advntk_dist.attacks.geometry import perturbation_size
from advntk_dist.errors import RequestError
from tests.autoattack_stand_in import stand_in

Make = Callable[..., Any]
M, SHAPE, K = 8, (8, 8, 2), 5
X = np.random.default_rng(4).uniform(-0.5, 0.5, (M, *SHAPE)).astype(np.float32)


def _needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}; autoattack() says how to get it")


@pytest.mark.parametrize("missing", ["torch", "autoattack"])
def test_without_the_packages_it_says_how_to_get_them(
    quadratic: Make, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RequestError, match=r"AutoAttack is not installed .*pip install torch git\+https"):
        autoattack(quadratic(SHAPE, K), X, np.zeros(M, np.int64), radius=0.1)


def test_impossible_requests(quadratic: Make) -> None:
    with pytest.raises(RequestError, match="no norm 'l3'"):
        autoattack(quadratic(SHAPE, K), X, np.zeros(M, np.int64), radius=0.1, norm="l3")  # type: ignore[arg-type]


def test_what_is_handed_over_and_comes_back(quadratic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the packages: images as (m, C, H, W) in [0, 1], the options, the projection of the result."""
    package = stand_in(monkeypatch, lambda images, labels, part: (images + 0.1001, labels))
    y = np.arange(M) % K
    found = autoattack(quadratic(SHAPE, K), X, y, radius=0.1, seed=7, batch=3, version="custom", attacks=["square"])
    seen = package.seen
    np.testing.assert_allclose(seen["images"].transpose(0, 2, 3, 1), X + 0.5, atol=1e-7)
    np.testing.assert_array_equal(seen["labels"], y)
    told = {key: seen[key] for key in ("norm", "eps", "seed", "version", "bs", "device")}
    assert told == {"norm": "Linf", "eps": 0.1, "seed": 7, "version": "custom", "bs": 3, "device": "cpu"}
    assert package.ran == ["square"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.minimum(X + 0.1, 0.5), atol=1e-6)


def test_parts_of_the_standard_version_keep_its_settings(quadratic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package refuses names beside version "standard", and takes them afterwards, as it does itself."""
    package = stand_in(monkeypatch, lambda images, labels, part: (images, labels))
    autoattack(quadratic(SHAPE, 10), X, np.zeros(M, np.int64), radius=0.1, attacks=["apgd-t"])
    assert "attacks_to_run" not in package.seen
    assert (package.seen["version"], package.ran) == ("standard", ["apgd-t"])


@pytest.mark.parametrize("verbose", [True, False])
def test_what_it_says_is_told_and_kept_off_standard_output(
    quadratic: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    def attack(images: Any, labels: Any, part: str) -> Any:
        print("Warning: there are 3 points with zero gradient!")
        print("robust accuracy: 50.00%")
        return images, labels

    stand_in(monkeypatch, attack)
    told: list[str] = []
    autoattack(
        quadratic(SHAPE, 10), X, np.zeros(M, np.int64), radius=0.1, attacks=["square"], on_flag=told.append,
        verbose=verbose,
    )  # fmt: skip
    assert told == ["there are 3 points with zero gradient!"]
    assert ("robust accuracy" in capsys.readouterr().out) == verbose


def test_images_that_only_it_counts_as_broken_are_told(quadratic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda images, labels, part: (images, (labels + (np.arange(M) < 2)) % 10))
    told: list[str] = []
    predictor = quadratic(SHAPE, 10)
    y = predictor.predict(X).argmax(axis=1)
    found = autoattack(predictor, X, y, radius=0.1, on_flag=told.append)
    np.testing.assert_allclose(found, X, atol=1e-7)
    assert told == ["2 images that it counts as broken are classified correctly after rounding, and count as robust"]


def test_too_few_classes_for_the_standard_version(quadratic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda images, labels, part: (images, labels))
    with pytest.raises(RequestError, match="moves towards 9 other classes, and the predictor has 5 outputs"):
        autoattack(quadratic(SHAPE, K), X, np.zeros(M, np.int64), radius=0.1)


def test_versions_tell_one_state_of_the_code_from_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = stand_in(monkeypatch, lambda images, labels, part: (images, labels))
    monkeypatch.setattr(package, "__file__", str(tmp_path / "__init__.py"))
    found = []
    for text in ("a = 1", "a = 2", "a = 1"):
        (tmp_path / "square.py").write_text(text)
        found.append(package_versions())
    assert found[0] == found[2] != found[1]
    assert found[0]["torch"] == "2.0-stand-in"


@_needs("torch")
def test_gradients_pass_through(quadratic: Make) -> None:
    torch = importlib.import_module("torch")
    predictor = quadratic(SHAPE, K)
    z = torch.from_numpy(X.transpose(0, 3, 1, 2) + np.float32(0.5)).requires_grad_()
    weights = np.random.default_rng(0).standard_normal((M, K))
    f = torch_model(torch, predictor, np.float32, 3.0)(z)
    np.testing.assert_allclose(f.detach().numpy(), 3 * predictor.predict(X), rtol=1e-4, atol=1e-4)
    (f * torch.from_numpy(weights)).sum().backward()
    np.testing.assert_allclose(
        z.grad.numpy().transpose(0, 2, 3, 1), 3 * predictor.vjp(X, weights), rtol=1e-3, atol=1e-3
    )


@_needs("torch", "autoattack")
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_runs_and_stays_in_the_ball(quadratic: Make, norm: Any) -> None:
    predictor = quadratic(SHAPE, K, 0, 3.0)
    predictor.linear, predictor.quadratic = 1e-4 * predictor.linear, 1e-4 * predictor.quadratic
    y = predictor.predict(X).argmax(axis=1)
    radius = {"linf": 0.03, "l2": 0.2, "l1": 1.0}[norm]
    found = autoattack(
        predictor, X, y, radius=radius, norm=norm, version="custom", attacks=["apgd-ce", "apgd-dlr", "square"]
    )
    assert (perturbation_size(found, X, norm) <= radius + 1e-5).all()
    assert np.abs(found).max() <= 0.5
    theirs = (predictor.predict(found).argmax(axis=1) != y).sum()
    ours = (predictor.predict(apgd(predictor, X, y, radius=radius, norm=norm, restarts=3)).argmax(axis=1) != y).sum()
    assert abs(int(theirs) - int(ours)) <= 1


@_needs("torch", "autoattack")
@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.03), ("l2", 0.3)])
def test_square_fells_what_the_code_of_its_authors_fells(quadratic: Make, norm: Any, radius: float) -> None:
    """At the same budget on 100 images; theirs draws one square a batch, so that only chance decides some images."""
    torch, module = importlib.import_module("torch"), importlib.import_module("autoattack.square")
    x = np.random.default_rng(4).uniform(-0.45, 0.45, (100, 10, 10, 1)).astype(np.float32)
    predictor = quadratic((10, 10, 1), 4, 0, 3.0)
    y = predictor.predict(x).argmax(axis=1)
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2) + np.float32(0.5)))
    options = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "n_queries": 200, "eps": radius, "seed": 0}
    model = torch_model(torch, predictor, np.float32, 1.0)
    attack = module.SquareAttack(model, device="cpu", resc_schedule=True, verbose=False, **options)
    moved = attack.perturb(images, torch.from_numpy(y)).numpy().transpose(0, 2, 3, 1) - np.float32(0.5)
    found = square(predictor, x, y, radius=radius, norm=norm, steps=200)
    ours, theirs = (predictor.predict(a).argmax(axis=1) != y for a in (found, moved))
    assert 30 < theirs.sum() < 90
    assert (theirs & ~ours).sum() <= 8
    assert (ours & ~theirs).sum() <= 15
