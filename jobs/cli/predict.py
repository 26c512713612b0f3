"""Implements `tailfill predict`: labels images by the committed weights of a study, or by an exported model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from shared.deploy.description import Description
from shared.deploy.listing import ListedImage, list_images
from shared.deploy.onnx_model import OnnxModel
from shared.deploy.output import as_csv, as_json, as_table, measured_text
from shared.deploy.predict import Model, Predicted, predict_images
from shared.errors import COMMITTED, INPUT, ConfigError
from shared.log import Log
from shared.settings import Settings

log = Log("predict")
Form = Literal["table", "csv", "json"]
FORMS = {"table": as_table, "csv": as_csv, "json": as_json}


class Prediction:
    """Labels images and counts those that cannot be read."""

    def __init__(self) -> None:
        self.unreadable = 0

    @property
    def exit_code(self) -> int:
        """Returns 0, or the code of a wrong input if an image could not be read."""
        return INPUT if self.unreadable else COMMITTED

    def lines(self, model: Model, images: Sequence[ListedImage], form: Form, confidence: float) -> Iterator[str]:
        """Yields the lines of the answers in their form; says on stderr which images cannot be read, and how often sure answers are wrong."""
        _explain(model.description, confidence)
        yield from FORMS[form](model.description, self._counted(predict_images(model, images)), confidence)
        if self.unreadable == len(images):
            log.error("no image could be read")
        elif self.unreadable:
            log.error(f"{self.unreadable} of {len(images)} images could not be read; the others were labelled")

    def _counted(self, predicted: Iterator[Predicted]) -> Iterator[Predicted]:
        for image, found in predicted:
            if isinstance(found, str):
                self.unreadable += 1
                log.error(f"{image.name}: {found}")
            yield image, found


def _explain(description: Description, confidence: float) -> None:
    log.info(f"the model is {description.chosen}")
    if description.preprocessing.boxed:
        log.warning("training images were cut to their bounding boxes; cut these images likewise")
    if confidence:
        for sentence in measured_text(description, confidence):
            log.info(sentence)


def study_model(workdir: Path | None, experiment: str | None, ensemble: bool) -> Model:
    """Returns the model of the study that was run last; raises ConfigError if there is none."""
    from shared.pipeline.local_session import last_study, latest_workdir, local_session

    folder = latest_workdir(workdir)
    study, fingerprints = last_study(folder)
    if experiment is not None:
        study.experiment(experiment)  # before torch is imported, which takes seconds

    from shared.classifier.runtime import Runtime
    from shared.deploy.choose import choose
    from shared.deploy.torch_model import load_model
    from shared.device import pick_device

    with local_session(study, fingerprints, folder, join=True, database=False) as local:
        session = local.session
        resources = session.study.resources
        device = pick_device(session.settings.device or resources.device)
        return load_model(choose(session, experiment), ensemble, Runtime(device, resources))


def predict(
    arguments: Sequence[Path],
    workdir: Path | None,
    experiment: str | None,
    ensemble: bool,
    exported: Path | None,
    form: Form,
    confidence: float,
) -> tuple[Prediction, Iterator[str]]:
    """Returns the prediction, whose exit code is known when its lines have been read, and these lines.

    Raises what `list_images` raises, and ConfigError for a confidence that is no probability or options that exclude each other.
    """
    if exported is not None and (experiment is not None or ensemble or workdir is not None):
        raise ConfigError("--model: names an exported model, so it excludes --experiment, --ensemble and --workdir")
    if not 0 <= confidence <= 1:  # as nan, which click takes
        raise ConfigError(f"--confidence: must be from 0 to 1, got {confidence}")
    images = list_images(arguments)
    prediction = Prediction()

    def lines() -> Iterator[str]:
        device = Settings.from_environment().device
        model = study_model(workdir, experiment, ensemble) if exported is None else OnnxModel(exported, device)
        yield from prediction.lines(model, images, form, confidence)

    return prediction, lines()
