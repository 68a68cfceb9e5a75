"""The paper's settings as configurations of the subjects of a grid."""

from __future__ import annotations

import hashlib
from typing import Any

from advntk_dist.config import RunConfig, paper, parse_config
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.reproduce.grid import Subject


def configuration(
    subject: Subject, radius: float, attack: str, path: str | None, workers: int | None = None
) -> RunConfig:
    """The paper's settings at the sizes that are asked for; radius in units of 1/255."""
    s = subject.sizes
    text = paper.settings(
        subject.dataset,
        subject.network,
        radius,
        attack=attack,
        n_train=s.n_train,
        n_val=s.n_val,
        n_test=s.n_test,
        seed=subject.seed,
    )
    overrides = [] if path is None or subject.dataset.endswith(".npz") else [f"data.path={path}"]
    if workers is not None:
        overrides.append(f"evaluation.workers={workers}")
    return parse_config(text, where=subject.name, overrides=overrides)


def finite_settings(steps: int, seed: int) -> AdversarialTrainingConfig:
    """The paper's adversarial training in so many steps; its milestones stay at the same parts of the whole."""
    return AdversarialTrainingConfig(
        steps=steps,
        lr_every=max(1, round(paper.AT_EVERY * steps / paper.AT_STEPS)),
        evaluate_every=min(steps, max(1000, steps // 5)),
        seed=seed,
    )


def training_identity(config: RunConfig) -> dict[str, Any]:
    """What the training of Adv-NTK depends on, as short text."""
    text = config.model_dump_json(include={"attack", "train", "network", "solver"})
    return {"configuration": hashlib.sha256(text.encode()).hexdigest()[:16]}
