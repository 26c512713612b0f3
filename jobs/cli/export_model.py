"""Implements `tailfill export model`: writes a study's model for timm or as an ONNX graph, and pushes it to the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

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

    Raises ConfigError if there is no model, if `out` is not empty, or if the hub refuses, and UnavailableError if it does not answer.
    """
    import torch

    from shared.classifier.runtime import Runtime
    from shared.deploy.choose import choose
    from shared.deploy.export import export_model as write
    from shared.settings import Settings
    from shared.weights.hub import check_repository, push_folder

    settings = Settings.from_environment(os.environ)
    if push is not None:
        check_repository(push, settings)  # before minutes of work
    folder = latest_workdir(workdir)
    with local_session(*last_study(folder), folder, join=True, database=False) as local:
        session = local.session
        chosen = choose(session, experiment)
        log.info(f"{chosen.experiment}: {chosen.why}", repetition=chosen.best.number)
        runtime = Runtime(torch.device("cpu"), session.study.resources)
        files = write(chosen, session.artifacts, out, form, licence, runtime)
    size = sum(path.stat().st_size for path in files) / 2**20
    line = f"{len(files)} files ({size:.1f} MiB) in {out}"
    return line if push is None else f"{line}; {push_folder(out, push, settings)}"
