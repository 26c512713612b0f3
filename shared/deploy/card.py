"""Writes the model card: Markdown with the Hugging Face hub's metadata block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from shared.deploy.description import Description
from shared.deploy.facts import ClassScore, Origin, Score
from shared.deploy.licences import hub_licence

CONFIDENCES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Lists the confidences of the table of risk and coverage."""


@dataclass(frozen=True)
class Card:
    """Holds all content of a model card."""

    description: Description
    architecture: str
    verdict: str
    """Holds the sentence of the study's report, or says that there is none."""
    sizes: dict[str, int]
    """Maps each split to its number of images."""
    added: int
    """Counts the generated images, or copies, in training."""
    scores: Sequence[Score]
    classes: Sequence[ClassScore]
    origins: Sequence[Origin]
    licences: dict[str, Any]
    usage: str
    """Holds the lines that load the model."""
    onnx: bool

    def markdown(self) -> str:
        """Returns the card."""
        d = self.description
        parts = [
            f"---\n{yaml.safe_dump(self._metadata(), sort_keys=False, allow_unicode=True)}---",
            f"# {plain(d.study)}: {plain(d.experiment)}",
            f"An image classifier ({self.architecture}, {d.preprocessing.resolution} px) for {self._questions()}. "
            f"It was trained and tested by the tailfill study `{d.study}`, repetition {', '.join(map(str, d.repetitions))}. {plain(d.chosen)}.",
            f"**What the study found:** {plain(self.verdict)}",
            f"## Use\n\n```python\n{self.usage}\n```",
            f"## Labels\n\n{self._labels()}",
            f"## Data\n\n{self.sizes['train']:,} training ({self.added:,} generated or copied images in addition), {self.sizes['val']:,} validation "
            f"and {self.sizes['test']:,} test images.\n\n{self._class_table()}",
            f"## Scores on the test split\n\n{self._score_table()}\n\nAn interval is that of this one training over other test images; trainings with "
            "other seeds vary too. The model was chosen by the validation split, so that these scores are not those of the best of several.",
            f"## Confidence\n\nProbabilities are calibrated by temperature scaling (Guo et al. 2017), fitted on the validation split: "
            f"{', '.join(f'{plain(name)} {t:.3g}' for name, t in d.temperatures.items())}. "
            f"On the test split, with answers below a confidence withheld:\n\n{self._risk_table()}",
            f"## Limits\n\n{self._limits()}",
            f"## Licence\n\n{self._licence()}",
            f"## Lineage\n\n{self._lineage()}",
        ]
        return "\n\n".join(parts) + "\n"

    def _metadata(self) -> dict[str, Any]:
        results = [
            {"type": score.name, "name": score.label, "value": round(score.value, 6)}
            for score in self.scores
            if score.value is not None
        ]
        name = f"{self.description.study}-{self.description.experiment}"
        return {
            **hub_licence(self.licences["model"]),
            "library_name": "onnx" if self.onnx else "timm",
            "pipeline_tag": "image-classification",
            "tags": ["image-classification", "tailfill", "onnx" if self.onnx else "timm"],
            "model-index": [
                {
                    "name": name,
                    "results": [
                        {
                            "task": {"type": "image-classification"},
                            "dataset": {
                                "name": f"{self.description.study} (test split)",
                                "type": str(self.licences["data"]["source"]),
                            },
                            "metrics": results,
                        }
                    ],
                }
            ],
        }

    def _questions(self) -> str:
        return ", ".join(
            f"{plain(g.name)} ({'one of' if g.kind == 'one' else 'any of'} {len(g.classes)})"
            for g in self.description.groups
        )

    def _labels(self) -> str:
        lines = []
        for group in self.description.groups:
            classes = ", ".join(self._label(group.name, group.kind, name) for name in group.classes)
            lines.append(
                f"- **{plain(group.name)}** ({'exactly one' if group.kind == 'one' else 'any number'}): {classes}"
            )
        return "\n".join(lines)

    def _label(self, group: str, kind: str, name: str) -> str:
        return (
            plain(name)
            if kind == "one"
            else f"{plain(name)} (from {self.description.thresholds[f'{group}/{name}']:.3f})"
        )

    def _class_table(self) -> str:
        rows = [
            [
                plain(c.name),
                *(f"{n:,}" for n in c.images),
                _percent(c.f1),
                _percent(c.recall),
                _interval(c.recall_interval, 100),
            ]
            for c in self.classes
        ]
        return _table(["class", "train", "val", "test", "F1, %", "recall, %", "95 % interval"], rows)

    def _score_table(self) -> str:
        rows = []
        for score in self.scores:
            value = "–" if score.value is None else _percent(score.value) if score.share else f"{score.value:.3f}"
            rows.append([score.label, value, _interval(score.interval, 100 if score.share else 1)])
        return _table(["metric (shares in %)", "value", "95 % interval"], rows)

    def _risk_table(self) -> str:
        rows = []
        for group in self.description.groups:
            for confidence in CONFIDENCES:
                found = self.description.abstention[group.name].at(confidence)
                rows.append(
                    [
                        plain(group.name),
                        f"{confidence:g}",
                        _percent(found.coverage),
                        _percent(found.risk),
                        _interval(found.interval, 100),
                    ]
                )
        return _table(["group", "confidence", "answered, %", "wrong of these, %", "95 % interval"], rows)

    def _limits(self) -> str:
        few = [plain(c.name) for c in self.classes if c.images[2] < 20]
        lines = [
            "It knows the classes above and no others: of an image of something else it still names one of them, perhaps with confidence.",
            "Scores and calibration hold for images like those of the study; where images differ (camera, place, time), measure again.",
            "Of each `any` group the thresholds were chosen for F1; choose others if a miss and a false alarm differ in cost."
            if any(group.kind == "any" for group in self.description.groups)
            else "",
            f"Fewer than 20 test images speak of {', '.join(few)}: these scores are uncertain." if few else "",
            "Training images were cut to their bounding boxes: cut yours likewise."
            if self.description.preprocessing.boxed
            else "",
        ]
        return "\n".join(f"- {line}" for line in lines if line)

    def _licence(self) -> str:
        weights, data, generator = (self.licences[key] for key in ("pretrained_weights", "data", "generator"))
        lines = [
            f"Model: {plain(self.licences['model'] or 'not stated by its author; ask before you use it')}.",
            f"Pretrained weights: {plain(weights['name'] or 'none')}, licence {plain(weights['licence'] or 'not known')}.",
            f"Data: {plain(data['source'])}, licence {data['licence'] or 'not known'}{'; ' + data['note'] if data['note'] else ''}.",
        ]
        if generator is not None:
            lines.append(
                f"Generated training images: by {plain(generator['name'])}{', base ' + plain(generator['base']) if generator['base'] else ''}."
            )
        return "\n".join(f"- {line}" for line in lines)

    def _lineage(self) -> str:
        rows = [[plain(o.role), o.stage, f"`{o.key}`", f"`{o.digest}`"] for o in self.origins]
        return _table(["role", "stage", "key", "digest (SHA-256)"], rows)


def plain(text: str) -> str:
    """Returns text that Markdown and HTML show as it is: names come from label files."""
    line = " ".join(str(text).split())
    return "".join(
        f"\\{c}" if c in "\\`*_[]|#~$!" else {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(c, c) for c in line
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _interval(interval: tuple[float, float] | None, factor: float) -> str:
    return "–" if interval is None else f"{factor * interval[0]:.1f} to {factor * interval[1]:.1f}"
