"""The shape of a QANA network, as plain values that travel in messages and model cards."""

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

Width = Annotated[int, Field(ge=8, le=1024)]
Stride = Annotated[int, Field(ge=1, le=2)]
Element = Literal["attention", "residual", "excitation"]
ELEMENTS: tuple[Element, ...] = ("attention", "residual", "excitation")
"""What a network may have or lack: spatially aware channel attention, residuals around Ghost
features, squeeze-and-excitation before the spike generator."""


class QanaConfig(BaseModel):
    """Widths, depth and elements of a QANA network.

    Parameters
    ----------
    input_size : int
        Side of the square RGB input in pixels; a multiple of 16, and of twice the product of
        ``strides``, so that no stage meets half a pixel.
    stem : int
        Filters of the stem convolution (stride 2).
    widths : tuple of int
        Filters of the Ghost stages. The paper's four are 32, 64, 128, 256 (arXiv 2507.15958,
        section on the architecture).
    strides : tuple of int
        Of each stage's first block: 2 halves the resolution, 1 keeps it. Halving it in the first
        stage already saves more than half of the events for at most a point of accuracy
        (docs/conversion.md). Where only ``widths`` are given, all stages but the first halve it,
        as in bundles that were made before there was a choice.
    depth : int
        Ghost blocks per stage.
    squeeze : int
        A stage of C filters computes C / squeeze attention channels.
    transform : int
        Filters of the transformation stage.
    spikes : int
        Units of the 1-bit spike generator: what the chip learns from.
    elements : tuple of Element
        Those of `ELEMENTS` that the network has, in that order, whatever order is given; by
        default none, as none was worth its weights (docs/benchmarks.md, "Ablations"). Where
        ``widths`` are given, but no elements, it has all, as in bundles of before there was a
        choice; and where it has all, they are left out of its JSON, which is as it was then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_size: int = Field(default=64, ge=32, le=256, multiple_of=16)
    stem: Width = 32
    widths: tuple[Width, ...] = (32, 64, 128, 256)
    strides: tuple[Stride, ...] = (2, 2, 2, 1)
    depth: int = Field(default=1, ge=1, le=4)
    squeeze: int = Field(default=4, ge=2, le=16)
    transform: Width = 256
    spikes: Width = 256
    elements: tuple[Element, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_before(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "widths" not in values:
            return values
        strides = (1, *[2] * (len(values["widths"]) - 1))
        return {"strides": strides, "elements": ELEMENTS, **values}

    @field_validator("elements")
    @classmethod
    def _in_order(cls, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        return tuple(element for element in ELEMENTS if element in elements)

    @model_validator(mode="after")
    def _divisible(self) -> "QanaConfig":
        for width in (*self.widths, self.transform):
            if width % self.squeeze or width % 2:
                raise ValueError(f"width {width} must be even and divisible by {self.squeeze}")
        if len(self.strides) != len(self.widths):
            raise ValueError(f"{len(self.widths)} widths need as many strides")
        if self.input_size % (2 * math.prod(self.strides)):
            raise ValueError(f"input_size {self.input_size} cannot be halved by all strides")
        return self

    @model_serializer(mode="wrap")
    def _without_a_choice(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Cards (which are sealed), digests and what is compared stay those of before the choice.
        values: dict[str, Any] = dump(self)
        if self.elements == ELEMENTS:
            del values["elements"]
        return values

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form: equal digests mean equal weight shapes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


DEMO_CONFIG = QanaConfig(
    stem=16,
    widths=(16, 32, 48, 64),
    strides=(2, 2, 2, 1),
    transform=96,
    spikes=128,
    elements=ELEMENTS,
)
"""A small network for demonstrations and tests, with all elements at a fraction of the work."""

WHOLE_CONFIG = QanaConfig(elements=ELEMENTS)
"""QANA of the default widths with all of its elements."""
