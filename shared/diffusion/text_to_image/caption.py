"""Makes captions from labels by a template, for the training of a text-to-image generator and for its prompts."""

from __future__ import annotations

from collections.abc import Mapping

from shared.config.near import near
from shared.config.templates import ALL, FIELD, check_template
from shared.data.schema import Labels, LabelSchema
from shared.errors import ConfigError


class Captioner:
    """Fills `finetune.caption`: `{labels}` with the phrases of all the image's classes, `{<group>}` with one group's.

    A class's phrase is that of `finetune.phrases`, or else its name with spaces in place of underscores. A label that is unknown, or absent
    in an `any` group, is left out, together with the space beside it. A template without a field gives all images the same caption.
    """

    def __init__(
        self, schema: LabelSchema, template: str, phrases: Mapping[str, str], setting: str = "finetune.caption"
    ) -> None:
        """Takes the setting that the template is from, for messages.

        Raises ConfigError for a field that is not a group, an unmatched brace, or a phrase for a class that does not exist.
        """
        check_template(template, [group.name for group in schema.groups], setting)
        names = list(schema.class_names)
        for name in phrases:
            if name not in names:
                raise ConfigError(f"finetune.phrases: {name!r} is no class, named as group/class{near(name, names)}")
        self._template = template
        self._slices = schema.slices()
        self._phrases = list(phrases_of(schema, phrases).values())

    def __call__(self, labels: Labels) -> str:
        """Returns the caption of one image's labels `[C]`."""
        words = {
            name: " ".join(self._phrases[column] for column in range(where.start, where.stop) if labels[column] == 1)
            for name, where in self._slices.items()
        }
        words[ALL] = " ".join(text for text in words.values() if text)
        return " ".join(FIELD.sub(lambda match: words[match[1]], self._template).split())


def phrases_of(schema: LabelSchema, phrases: Mapping[str, str]) -> dict[str, str]:
    """Maps all classes to their phrases, in the order of the columns: those of `phrases`, or else their names."""
    words = [name.replace("_", " ") for group in schema.groups for name in group.classes]
    return {name: phrases.get(name, word) for name, word in zip(schema.class_names, words, strict=True)}
