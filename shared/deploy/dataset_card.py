"""Writes the card of exported generated images: Markdown with the Hugging Face hub's metadata block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from shared.data.sources.table import DrawnSource, source_entry
from shared.deploy.card import plain
from shared.deploy.generated import Counts, Pool
from shared.deploy.image_folder import REAL
from shared.deploy.licences import OWN, data_licence, hub_licence
from shared.diffusion.text_to_image.families.table import KNOWN

SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)


@dataclass(frozen=True)
class DatasetCard:
    """Holds all content of the card."""

    study: str
    experiment: str
    source: str
    """Names the image source of the real images."""
    pools: Sequence[Pool]
    counts: Counts
    written: int
    """Counts the images in the folder."""
    resolution: int
    licence: str | None
    """Names the licence that the author of the export states."""
    real_images: bool
    """Says whether the folder also holds real images, for the page on which the others are reviewed."""

    def markdown(self) -> str:
        """Returns the card."""
        made, accepted = self.counts.made.total(), self.counts.accepted.total()
        share = f"{accepted:,} of {made:,} ({100 * accepted / max(made, 1):.0f} %)"
        decided = f"Not scored yet; {accepted:,} of {made:,}" if self.counts.unknown else share
        parts = [
            f"---\n{yaml.safe_dump(self._metadata(), sort_keys=False, allow_unicode=True)}---",
            f"# {plain(self.study)}: generated images of {plain(self.experiment)}",
            f"{self.written:,} images of {self.resolution} px that a generator drew for the rare classes of the tailfill study `{self.study}`. "
            "They are synthetic: no image shows what was there, and a label says what was asked for, not what a person saw.",
            f"## Use\n\n```python\n{USE}\n```",
            f"## What was made\n\n{self._origins()}",
            f"## How many were accepted\n\n{decided} are accepted for training.{self._refused()}\n\n{self._classes()}",
            f"## Columns\n\n{COLUMNS}",
            f"## Licence and terms\n\n{self._terms()}",
        ]
        return "\n\n".join(parts) + "\n"

    def _metadata(self) -> dict[str, Any]:
        size = next((name for limit, name in SIZES if self.written < limit), "n>1T")
        return {
            **hub_licence(self._licence()),
            "pretty_name": f"{self.study}: generated images of {self.experiment}",
            "task_categories": ["image-classification"],
            "tags": ["synthetic", "tailfill"],
            "size_categories": [size],
        }

    def _licence(self) -> str | None:
        """Returns the licence of the images: the one that is stated, else that of the base, if nothing else of theirs is restricted."""
        if self.licence is not None:
            return self.licence
        base = self.pools[0].base
        if self.pools[0].few_step is not None:
            return None  # its terms apply too, and are not known here
        if base is not None:
            return KNOWN[base].licence if base in KNOWN else None
        return OWN if isinstance(source_entry(self.source), DrawnSource) else None

    def _origins(self) -> str:
        first = self.pools[0]
        base = f", which fine-tuned the base {plain(first.base)}" if first.base else ", trained from scratch"
        lines = [f"- Generator: {plain(first.finetune.config['finetune']['generator'])}{base} on the training images."]
        if first.few_step is not None:
            lines.append(f"- Images were drawn in few steps, by the LoRA {plain(first.few_step)}.")
        lines += [
            f"- Pool {pool.number}: {self.counts.pools[pool.number]:,} images, `generate` key `{pool.generate.key}`, manifest "
            f"`{pool.generate.digest}`; `finetune` key `{pool.finetune.key}`"
            + (f"; `score` key `{pool.score.key}`" if pool.score is not None else "; not scored")
            + "."
            for pool in self.pools
        ]
        return "\n".join(lines)

    def _refused(self) -> str:
        reasons = ", ".join(f"{count:,} {plain(reason)}" for reason, count in self.counts.refused.most_common())
        decided = self.counts.decided
        person = f" A person kept {decided['keep']:,} and rejected {decided['reject']:,}." if decided else ""
        return f"{f' Refused: {reasons}.' if reasons else ''}{person}"

    def _classes(self) -> str:
        lines = ["| filled class | made | accepted | share |", "| --- | --- | --- | --- |"]
        for name, made in sorted(self.counts.made.items()):
            accepted = self.counts.accepted[name]
            lines.append(f"| {plain(name)} | {made:,} | {accepted:,} | {100 * accepted / made:.0f} % |")
        return "\n".join(lines)

    def _terms(self) -> str:
        data, first = data_licence(self.source), self.pools[0]
        note = f" ({data['note']})" if data["note"] else ""
        lines = [
            f"The generator learned from the real images of the study, a data set of the source `{data['source']}`, licence "
            f"{data['licence'] or 'not known here'}{note}. Their terms apply to what is made of them: read these before you pass images on.",
            "A generator may give back a training image. Copies are looked for when images are scored, and the column `copy_of` names them; "
            "nothing guarantees that all are found.",
        ]
        if self.real_images:
            lines.append(f"The folder `{REAL}` holds real images: remove it before you pass this data set on.")
        if first.base is not None:
            terms = KNOWN.get(first.base)
            lines.append(
                f"The base {plain(first.base)} has the licence {plain(terms.licence) if terms else 'that its repository states'}, whose terms on "
                "its output apply too."
            )
        if first.few_step is not None:
            lines.append(
                f"The LoRA {plain(first.few_step)} has the licence that its source states, whose terms apply too."
            )
        return "\n".join(f"- {line}" for line in lines)


USE = """\
from datasets import load_dataset

images = load_dataset("imagefolder", data_dir="DIR", split="train")
accepted = images.filter(lambda row: row["accepted"])"""
COLUMNS = """\
| column | meaning |
| --- | --- |
| `file_name` | the image, relative to this folder |
| a column per label group | its label: the class, or 0, 1 or null per class of an `any` group |
| `id` | names the image in a review (`accept.reviewed`): pool, index, and the beginning of its file's SHA-256 |
| `filled` | the rare class that it was made for |
| `pool`, `index`, `seed`, `prompt`, `guidance`, `strength` | how it was drawn |
| `source`, `source_image` | row and path of the training image whose labels it has |
| `start` | the training row that image-to-image began with; null if it began with noise |
| `start_image`, `noise_share` | with `start_from: similar`: the path of that image, and the share of noise on it, by which both share the label |
| `model`, `generator`, `base`, `base_digest` | digest of the fine-tuned model, the generator, and its base |
| `few_step` | with `generate.few_step`: the LoRA by which it was drawn in few steps |
| `finetune_key`, `generate_key` | the keys of the results in the study's store |
| `plausibility`, `p_<group>` | the probability that judges, trained on other real images, give to the filled class, and to each group's label |
| `neighbour`, `neighbour_ratio`, `as_near`, `copy_of` | the nearest training image, how near it is, and the one that it is a copy of |
| `test_neighbour`, `test_ratio`, `test_as_near`, `leak_of` | the same of test images; `leak_of` names a validation or test image that it is a copy of |
| `accepted`, `refused` | whether the study trains on it, and why not |
| `refused_by_scores`, `reviewed` | with a review: what its scores alone say, and what a person decided |"""
"""Explains the columns of `metadata.jsonl`."""
