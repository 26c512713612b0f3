"""Describes a trained model to those who use it without its study: what it is shown, what it answers, and how far to trust that.

It is the part `tailfill` of an exported `config.json`. This module and those that predict from an export import no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from shared.config.base import Section
from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import DataError
from shared.metrics.abstention import Abstention
from shared.metrics.counts import threshold_array
from shared.names import Digest

CONFIG = "config.json"
KEY = "tailfill"
MOST_PIXELS = 2_000_000_000
"""Limits the limit of pixels of an image."""
Side = Annotated[int, Field(ge=1, le=1024)]
Positive = Annotated[float, Field(gt=0)]


class Preprocessing(Section):
    """Says how an image file becomes the network's input, exactly as in training."""

    stored_resolution: Side
    """Gives the side in pixels of the square image that is made first, as `prepare` stores it: PNG up to 128 pixels, else JPEG of quality 95."""
    fit: Literal["squash", "crop", "pad"]
    """Says how an image becomes square, as `dataset.fit` does."""
    resolution: Side
    """Gives the side in pixels of the network's input, to which the stored image is resized (bicubic)."""
    mean: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
    """Holds the mean of each channel, which is subtracted from pixels in 0 to 1."""
    std: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=3)]
    """Holds the standard deviation of each channel, by which they are then divided."""
    window: tuple[float, float] | None = None
    """Gives the values of a grey image of more than 8 bits that become black and white; None takes percentiles of each image."""
    most_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS)]
    """Limits the pixels of an image that is opened: what unpacks to more may be made to fill the memory."""
    boxed: bool = False
    """Says whether training images were cut to their bounding boxes first."""


class Description(Section):
    """Holds what the answers of a model, or of several whose probabilities are averaged, rest on."""

    format: Literal[1] = 1
    """Gives the version of the description, which is raised when a key is removed or changes its meaning."""
    study: str
    experiment: str
    repetitions: tuple[int, ...]
    """Lists the repetitions whose models it is of; one, except in an ensemble."""
    chosen: str
    """Says why this experiment and repetition were chosen."""
    groups: tuple[LabelGroup, ...]
    preprocessing: Preprocessing
    temperatures: dict[str, float]
    """Maps each group to the number by which its logits are divided; empty in an ensemble, whose models have their own."""
    thresholds: dict[str, float]
    """Maps the classes of `any` groups to the calibrated probability from which they are predicted."""
    abstention: dict[str, Abstention]
    """Counts answers on the study's test split by their confidence, per group."""
    head: tuple[int, ...]
    """Lists the widths of the hidden layers between the pooled features and the classes."""
    sha256: dict[str, Digest] = Field(default_factory=dict)
    """Maps the files of an export to their digests."""

    @model_validator(mode="after")
    def _check_groups(self) -> Description:
        names = [group.name for group in self.groups]
        if not names or len(set(names)) < len(names) or set(names) != set(self.abstention):
            raise ValueError("groups must have different names, with the counts of each in abstention")
        if any(len(group.classes) < (2 if group.kind == "one" else 1) for group in self.groups):
            raise ValueError("a group must have classes")
        return self

    @property
    def schema_(self) -> LabelSchema:
        """Lists the label groups."""
        return LabelSchema(groups=self.groups)

    def threshold_array(self) -> NDArray[np.float64]:
        """Returns the thresholds of all classes, `[C]`; 0.5 in `one` groups, which do not use it."""
        return threshold_array(self.schema_, self.thresholds)


def write_description(folder: Path, description: Description, facts: Mapping[str, Any]) -> None:
    """Adds the description, and facts beside it, to the `config.json` of an export, of which timm reads its own keys only."""
    path = folder / CONFIG
    config = json.loads(path.read_bytes()) if path.exists() else {}
    config[KEY] = {**description.model_dump(mode="json"), **facts}
    path.write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_description(folder: Path) -> Description:
    """Returns the description in an exported folder, which has other keys beside it; raises DataError if there is none or it is damaged."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
        known = {name: value for name, value in config[KEY].items() if name in Description.model_fields}
        return Description.model_validate_json(json.dumps(known))
    except FileNotFoundError:
        raise DataError(
            f"{path}: not found; name a folder that `tailfill export model DIR --format onnx` has written"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {KEY}.{place}: {first['msg']}; export the model again") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: holds no description of a model under the key {KEY!r} ({type(error).__name__}); export it again"
        ) from error
