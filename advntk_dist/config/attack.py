"""The section of the attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from advntk_dist.config.values import Pixels, Section, Seed, fraction

_USUAL_LOSS = {
    "pgd": "margin",
    "pgd-reference": "squared-error",
    "fgsm": "margin",
    "apgd": "dlr",
    "apgd-targeted": "dlr-targeted",
    "square": "margin",
}


class AttackConfig(Section):
    """The attack of training, selection and evaluation."""

    name: Literal["pgd", "pgd-reference", "fgsm", "apgd", "apgd-targeted", "square"] = "pgd"
    """pgd, pgd-reference, fgsm, apgd, apgd-targeted or square."""
    radius: Annotated[Pixels, Field(ge=0)] = 0.2
    """Largest change of an image, where the range of a pixel is 1; "8/255" is understood."""
    steps: Annotated[int, Field(ge=0)] = 10
    """Gradient steps a start."""
    step_size: Annotated[Pixels, Field(ge=0)] | None = None
    """By default a fifth of the radius."""
    norm: Literal["linf", "l2", "l1"] = "linf"
    """What the radius is measured in: linf, l2 or l1."""
    seed: Seed = 0
    """Seed of the random starts."""
    loss: Literal["squared-error", "margin", "dlr", "cross-entropy", "margin-targeted", "dlr-targeted"] = "margin"
    """What is maximised; by default margin, for apgd dlr, for apgd-targeted dlr-targeted, for pgd-reference and for
    train.recipe = "paper" squared-error."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Random starts, of which each image keeps the worst."""
    targets: Annotated[int, Field(ge=1)] = 9
    """Other classes that apgd-targeted moves towards, the likeliest first."""
    queries: Annotated[int, Field(ge=1)] = 5000
    """Predictions that square may ask for, an image and a start."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_step(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        resolved = dict(values)
        if values.get("loss") is None and (usual := _USUAL_LOSS.get(str(values.get("name", "pgd")))):
            resolved["loss"] = usual
        if values.get("step_size") is None:
            radius = fraction(values.get("radius", cls.model_fields["radius"].default))
            if isinstance(radius, int | float) and not isinstance(radius, bool) and radius >= 0:
                resolved["step_size"] = radius / 5
        return resolved

    @model_validator(mode="after")
    def _possible(self) -> AttackConfig:
        if self.name == "pgd-reference" and self.norm != "linf":
            raise ValueError('pgd-reference exists for norm = "linf" only')
        if self.name == "pgd-reference" and (self.loss != "squared-error" or self.restarts != 1):
            raise ValueError('pgd-reference exists for loss = "squared-error" and restarts = 1 only')
        if self.name == "square" and (self.norm == "l1" or self.loss != "margin"):
            raise ValueError('square exists for norm = "linf" and "l2", and for loss = "margin"')
        if self.loss.endswith("-targeted") != (self.name == "apgd-targeted"):
            raise ValueError('loss "margin-targeted" or "dlr-targeted" belongs to name = "apgd-targeted", no other')
        return self

    def described(self) -> dict[str, Any]:
        """Everything that tells what this attack does, as JSON values, with what goes without saying written out."""
        unused = {"targets"} if self.name != "apgd-targeted" else set()
        unused |= {"queries"} if self.name != "square" else {"steps"}
        unused |= {"step_size"} if self.name not in ("pgd", "pgd-reference") else set()  # others choose their own
        found = {key: value for key, value in self.model_dump(mode="python").items() if key not in unused}
        return found | {"steps": 1} if self.name == "fgsm" else found

    @property
    def label(self) -> str:
        """A file name that tells attacks apart."""
        words = [self.name, self.norm, f"r{self.radius:.6g}", f"s{self.step_size:.6g}", f"n{self.steps}"]
        words += [f"seed{self.seed}", self.loss]
        words += [f"x{self.restarts}"] if self.restarts != 1 else []
        words += [f"t{self.targets}"] if self.name == "apgd-targeted" else []
        return "_".join([*words, f"q{self.queries}"] if self.name == "square" else words)
