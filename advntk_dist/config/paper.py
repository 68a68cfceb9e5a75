"""The paper's settings (Fu & Wang 2024, section 6), made from the name of an experiment.

Names: ``paper/DATASET-NETWORK-rR``, R the radius in 1/255, for example ``paper/cifar10-mlp-5-r8``.
"""

from __future__ import annotations

import re

from advntk_dist.attacks.registry import PLAIN
from advntk_dist.errors import ConfigError
from advntk_dist.spec import parse_name
from advntk_dist.text import did_you_mean

PREFIX = "paper/"
DATASETS = ("cifar10", "svhn")
DEPTHS = (3, 4, 5, 8, 10)
NETWORKS = (
    *(f"mlp-{x}" for x in DEPTHS),
    *(f"cnn-{x}" for x in DEPTHS),
    "resnet-18",
    "resnet-34",
)
RADII = (4, 8)
"""In units of 1/255."""
N_TRAIN, N_VAL = 10_000, 2_000
"""12,000 images, 2,000 of which the loss of Adv-NTK is measured on."""
N_TEST = 2_000
"""Test images by default, drawn from the publisher's test set; not a setting of the paper."""
AT_STEPS, AT_EVERY = 20_000, 8_000
"""Steps of finite adversarial training, and steps between two cuts of its learning rate."""
AT_WIDTH, AT_WIDTH_OF_MLP_SCRIPTS = 256, 512
"""Width of the finite networks: in the paper's text, and of MLPs in the authors' scripts."""
TIMES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Uniform times among which early stopping chooses; a baseline that the paper lacks."""


def learning_rate(dataset: str, network: str) -> float:
    """Learning rate of Adv-NTK: 1e-6 for ResNets, otherwise 1 on SVHN and 0.1 on other data."""
    family, _ = parse_name(network) or ("mlp", 0)
    if family == "resnet":
        return 1e-6
    return 1.0 if dataset == "svhn" else 0.1


def names() -> list[str]:
    """Every experiment of the paper, by name."""
    return [f"{PREFIX}{d}-{n}-r{r}" for d in DATASETS for n in NETWORKS for r in RADII]


def summary() -> str:
    """All names in one line."""
    return (
        f"{PREFIX}{{{','.join(DATASETS)}}}-"
        f"{{mlp,cnn}}-{{{','.join(map(str, DEPTHS))}}}|resnet-{{18,34}}-r{{{','.join(map(str, RADII))}}}"
    )


def preset(name: str) -> str:
    """The TOML of an experiment.

    Raises
    ------
    ConfigError
        If the paper has no such experiment.
    """
    match = re.fullmatch(rf"{PREFIX}([a-z0-9]+)-([a-z]+-\d+)-r(\d+)", name)
    if not match or name not in names():
        raise ConfigError(f"no preset {name!r}{did_you_mean(name, names())}; the paper's are {summary()}")
    dataset, network, radius = match[1], match[2], int(match[3])
    return settings(dataset, network, radius)


def settings(
    dataset: str,
    network: str,
    radius: float,
    *,
    attack: str = PLAIN.name,
    n_train: int = N_TRAIN,
    n_val: int = N_VAL,
    n_test: int = N_TEST,
    seed: int = 0,
) -> str:
    """TOML of the paper's settings for a network, with the radius in units of 1/255; the rest is as in the paper.

    The seed draws the images, the order of batches and the random starts of attacks.
    """
    name, path = ("npz", dataset) if dataset.endswith(".npz") else (dataset, None)
    where = f"path = '{path}'\n" if path else ""
    times = ", ".join(f"{t:g}" if t < 1 else f"{t:.1f}" for t in TIMES)
    return f"""# {dataset}, {network}, radius {radius:g}/255, settings of the paper.
[data]
name = "{name}"
{where}n_train = {n_train}
n_val = {n_val}
n_test = {n_test}
seed = {seed}

[network]
name = "{network}"
W_std = 1.76
b_std = 0.18

[attack]
name = "{attack}"
radius = {radius / 255!r}
step_size = {radius / 255 / 5!r}
steps = 10
seed = {seed}

[train]
recipe = "paper"
steps = 50
lr = {learning_rate(dataset, network)!r}
batch = 128
seed = {seed}

[evaluation]
times = [{times}]
"""
