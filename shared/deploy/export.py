"""Writes a study's model into a folder that others use without the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import check_empty_folder, disk_errors
from shared.classifier.portable import BACKBONE, HEAD, pretrained_licence, write_onnx, write_timm
from shared.classifier.predictor import Predictor
from shared.classifier.runtime import Runtime
from shared.deploy import usage
from shared.deploy.card import Card
from shared.deploy.choose import Chosen, shown_score
from shared.deploy.description import CONFIG, write_description
from shared.deploy.facts import class_scores, lineage, scores
from shared.deploy.licences import licences
from shared.deploy.onnx_model import GRAPH, INPUT, LOGITS, PROBABILITIES
from shared.deploy.torch_model import describe, load_repetition
from shared.digests import file_digest

Format = Literal["hf", "onnx"]
CARD = "README.md"
WRITTEN = (CONFIG, BACKBONE, HEAD, GRAPH, CARD)
"""Names all files that an export may have."""


def export_model(
    chosen: Chosen, artifacts: Artifacts, out: Path, form: Format, licence: str | None, runtime: Runtime
) -> list[Path]:
    """Writes the best repetition of the chosen experiment into a new or empty folder, and returns its files.

    What was written is loaded and compared with the network first. `runtime` is on a CPU. Raises ConfigError if the folder is not empty or the
    network cannot be written in this form, and UnavailableError if the disk is full.
    """
    check_empty_folder(out)
    predictor = load_repetition(chosen.best, chosen.info.resolution, runtime)
    try:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            return _write(chosen, artifacts, out, form, licence, predictor)
    except BaseException:
        # else the same command, or one with the other --format, would refuse the folder, as it is not empty
        for name in WRITTEN:
            (out / name).unlink(missing_ok=True)
        raise


def _write(
    chosen: Chosen, artifacts: Artifacts, out: Path, form: Format, licence: str | None, predictor: Predictor
) -> list[Path]:
    best = chosen.best
    description = describe(chosen, [best], predictor)
    classifier, fit = best.arm.classifier, description.preprocessing.fit
    if form == "hf":
        written = write_timm(predictor, classifier, out, fit)
        files: Sequence[str] = written.files
        lines = usage.WHOLE if written.whole else usage.HEAD
        lines += usage.probabilities_lines(description.schema_)
    else:
        names = (INPUT, LOGITS, PROBABILITIES)
        write_onnx(predictor, description.temperatures, out / GRAPH, names, _run_graph)
        files, lines = (CONFIG, GRAPH), usage.onnx_lines(fit)
    terms = licences(chosen, best, pretrained_licence(classifier), licence)
    origins = lineage(artifacts, best.manifest, chosen.report)
    measured = scores(chosen, best)
    digests = {name: file_digest(out / name) for name in files if name != CONFIG}
    facts = {
        "licences": terms,
        "selection": shown_score(chosen, best.number),
        "test": [asdict(score) for score in measured],
        "lineage": [asdict(origin) for origin in origins],
    }
    write_description(out, description.model_copy(update={"sha256": digests}), facts)
    images = best.manifest.summary["images"]
    card = Card(
        description,
        classifier.model,
        _verdict(chosen),
        best.info.sizes,
        int(images["added"]),
        measured,
        class_scores(chosen, best),
        origins,
        terms,
        lines.strip(),
        form == "onnx",
    )
    (out / CARD).write_text(card.markdown(), encoding="utf-8")  # last, so that a folder with it is complete
    for name in files:
        (out / name).chmod(0o644)  # safetensors makes its files readable by their owner only
    return [out / name for name in (*files, CARD)]


def _run_graph(path: Path, images: torch.Tensor) -> torch.Tensor:
    """Returns the probabilities that ONNX Runtime computes of normalised images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([PROBABILITIES], {INPUT: images.numpy()})[0])


def _verdict(chosen: Chosen) -> str:
    if chosen.report is None:
        return "Its report is not committed, so there is no verdict yet."
    return str(chosen.report.summary["answer"])
