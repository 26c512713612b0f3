"""Implements `tailfill export model`: writes a study's model for timm or as an ONNX graph, and pushes it to the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from shared.artifacts.disk import check_empty_folder
from shared.log import Log
from shared.pipeline.local_session import last_study, latest_workdir, local_session

log = Log("export")


def export_model(
    out: Path,
    form: Literal["hf", "onnx"],
    experiment: str | None,
    licence: str | None,
    push: str | None,
    workdir: Path | None,
) -> str:
    """Writes the model of the study that was run last into `out`, pushes the folder if `push` names a repository, and returns a line about it.

    Raises ConfigError if there is no model, if `out` is not empty, if an option names what there is not, or if the hub refuses, and
    UnavailableError if the hub does not answer.
    """
    from shared.deploy.licences import check_licence
    from shared.deploy.onnx_model import check_installed
    from shared.settings import Settings
    from shared.weights.hub import check_repository, push_folder

    # what is wrong with the command is said at once: torch takes seconds to import, and an export minutes
    check_empty_folder(out)
    check_licence(licence)
    if form == "onnx":
        check_installed("onnx", "onnxruntime")
    folder = latest_workdir(workdir)
    study, fingerprints = last_study(folder)
    if experiment is not None:
        study.experiment(experiment)
    settings = Settings.from_environment(os.environ)
    if push is not None:
        check_repository(push, settings)

    import torch

    from shared.classifier.runtime import Runtime
    from shared.deploy.choose import choose
    from shared.deploy.export import export_model as write

    with local_session(study, fingerprints, folder, join=True, database=False) as local:
        session = local.session
        chosen = choose(session, experiment)
        log.info(f"{chosen.experiment}: {chosen.why}", repetition=chosen.best.number)
        runtime = Runtime(torch.device("cpu"), session.study.resources)
        files = write(chosen, session.artifacts, out, form, licence, runtime)
    size = sum(path.stat().st_size for path in files) / 2**20
    line = f"{len(files)} files ({size:.1f} MiB) in {out}"
    return line if push is None else f"{line}; {push_folder(out, push, settings)}"
