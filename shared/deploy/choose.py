"""Chooses which of a study's final trainings to use, by the verdict and the validation split alone; the test split is never asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import apply_parameters
from shared.config.resolve import ResolvedStudy
from shared.config.search import Verdict
from shared.config.stages import Arm, FinalConfig
from shared.data.dataset import DatasetInfo, rare_classes, read_info
from shared.data.schema import Labels, LabelSchema
from shared.errors import ConfigError, DataError
from shared.metrics.calibration import Calibration, calibrated
from shared.pipeline import status as step_status
from shared.pipeline.session import Session
from shared.report.inputs import Predictions, StageResult, read_predictions, read_validation
from shared.report.recommended import HELPS, ValidationScores, deciding_metric, validation_score


@dataclass(frozen=True)
class Repetition:
    """Holds a committed final training, whose files are fetched when they are needed."""

    number: int
    manifest: Manifest
    artifacts: Artifacts
    info: DatasetInfo
    """Describes the data set that it was trained and tested on."""

    def files(self, *names: str) -> dict[str, Path]:
        """Returns the local paths of these files, as far as they were committed."""
        return {file.name: self.artifacts.fetch(file) for file in self.manifest.files if file.name in names}

    @property
    def schema(self) -> LabelSchema:
        """Lists the label groups."""
        return self.info.schema_

    @cached_property
    def arm(self) -> Arm:
        """Returns the arm with the parameters that it was trained with."""
        config = FinalConfig.model_validate({**self.manifest.config, "weights": {}}, strict=False)
        return apply_parameters(config.arm, config.parameters)

    @cached_property
    def calibration(self) -> Calibration:
        """Returns its temperatures and thresholds; raises DataError if they are missing or damaged."""
        with self._readable("calibration.json") as path:
            found = Calibration.model_validate_json(path.read_bytes())
            if set(found.temperatures) != set(self.schema.slices()):
                raise ValueError(f"it has temperatures of {sorted(found.temperatures)}")
            return found

    @cached_property
    def validation(self) -> tuple[NDArray[np.float32], Labels]:
        """Returns the logits and the labels of the validation split, both `[m, C]`; raises DataError if they are missing or damaged."""
        with self._readable("validation.parquet") as path:
            return read_validation(path, self.schema)

    @property
    def validation_calibrated(self) -> NDArray[np.float32]:
        """Returns the calibrated probabilities of the validation split, `[m, C]`."""
        return calibrated(self.schema, self.validation[0], self.calibration.temperatures)

    @cached_property
    def test(self) -> Predictions:
        """Returns the predictions on the test split."""
        files = self.files("predictions.parquet", "thresholds.json")
        return read_predictions(StageResult(self.manifest, files), self.schema, f"final {self.number}")

    @contextmanager
    def _readable(self, name: str) -> Iterator[Path]:
        """Yields the path of a file; raises DataError if it is missing, or for any error of reading what it holds."""
        where = f"final {self.manifest.key[:8]}: {name}"
        files = self.files(name)
        if name not in files:
            raise DataError(f"{where} was not committed; run it again (--rerun final)")
        try:
            yield files[name]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{where} is damaged ({reason}); run it again (--rerun final)") from error


@dataclass(frozen=True)
class Chosen:
    """Holds the final trainings of the chosen experiment."""

    study: ResolvedStudy
    info: DatasetInfo
    """Describes the data set; if each repetition tests on a fold of its own, that of the first."""
    experiment: str
    why: str
    """Says why this experiment was chosen."""
    repetitions: Mapping[int, Repetition]
    """Maps the numbers of the committed repetitions to them."""
    scores: ValidationScores
    report: Manifest | None

    @property
    def best(self) -> Repetition:
        """Returns the repetition with the best value on the validation split, the first of equal ones."""
        return self.repetitions[self.scores.best]


def choose(session: Session, experiment: str | None) -> Chosen:
    """Returns the trainings of `experiment`, or if it is None of the one that the verdict recommends: an arm that helps, else the baseline.

    Of several arms that help, it is the one with the best mean value on the validation split. Raises ConfigError for an unknown experiment, if
    nothing is committed of it, and if there is no verdict to go by.
    """
    rows = step_status.states(session.study, session.steps, session.artifacts)
    committed = {row.step.id: row.manifest for row in rows}
    needs = session.steps[-1].needs
    report, prepared = committed[session.steps[-1].id], committed[needs["prepare"].id]
    names = [e.name for e in session.study.experiments]
    if experiment is not None:
        session.study.experiment(experiment)
    if prepared is None:
        raise ConfigError(f"study {session.study.name}: nothing is trained yet; `tailfill run` continues it")

    def read(manifest: Manifest) -> DatasetInfo:
        return read_info(session.artifacts.fetch(manifest.file("dataset.json")))

    info = read(prepared)
    infos = {
        int(role.removeprefix("prepare/")): read(manifest)
        for role, step in needs.items()
        if role.startswith("prepare/") and (manifest := committed[step.id]) is not None
    }
    finals: dict[str, dict[int, Manifest]] = {name: {} for name in names}
    for role, step in needs.items():
        stage, _, rest = role.partition("/")
        if stage == "final" and (manifest := committed[step.id]) is not None:
            name, _, number = rest.partition("/")
            finals[name][int(number)] = manifest

    def of(name: str, why: str) -> Chosen:
        return _scored(session, info, infos, name, why, finals[name], report)

    if experiment is not None:
        return of(experiment, f"the experiment {experiment} was asked for")
    verdict = session.study.verdict
    if not isinstance(verdict, Verdict):
        if len(names) == 1:
            return of(names[0], "it is the only experiment of the study")
        raise ConfigError(
            f"study {session.study.name}: has no verdict (verdict: none), which would say what to use; name one with --experiment: {', '.join(names)}"
        )
    if report is None:
        raise ConfigError(
            f"study {session.study.name}: its report, whose verdict says what to use, is not committed; `tailfill run` continues it, or name an "
            f"experiment with --experiment: {', '.join(names)}"
        )
    outcomes = _outcomes(report, names)
    helping = [of(arm, f"the verdict is “{said}”") for arm, said in outcomes.items() if said in HELPS]
    if helping:
        return max(helping, key=lambda chosen: chosen.scores.mean_worth)
    found = ", ".join(f"{arm}: {said}" for arm, said in outcomes.items()) or "no arm with generated images"
    return of(verdict.baseline, f"it is the baseline, and the verdict recommends no other ({found})")


def _outcomes(report: Manifest, names: Sequence[str]) -> dict[str, str]:
    """Returns the outcome of each arm; raises DataError if the report's manifest has none, or of an unknown arm."""
    found = report.summary.get("outcomes")
    if not isinstance(found, dict) or not all(arm in names and isinstance(said, str) for arm, said in found.items()):
        raise DataError(f"report {report.key[:8]}: has no outcomes of the study's arms; run it again (--rerun report)")
    return found


def _scored(
    session: Session,
    info: DatasetInfo,
    infos: Mapping[int, DatasetInfo],
    name: str,
    why: str,
    finals: Mapping[int, Manifest],
    report: Manifest | None,
) -> Chosen:
    if not finals:
        raise ConfigError(
            f"study {session.study.name}: no final training of {name} is committed; `tailfill run` continues the study"
        )
    metric, rare = deciding_metric(session.study.verdict), rare_classes(session.study.written.rare, info)
    repetitions = {
        number: Repetition(number, manifest, session.artifacts, infos.get(number, info))
        for number, manifest in sorted(finals.items())
    }
    scores = {
        number: validation_score(info.schema_, *repetition.validation, rare, metric)
        for number, repetition in repetitions.items()
    }
    return Chosen(session.study, info, name, why, repetitions, ValidationScores(metric, scores), report)


def shown_score(chosen: Chosen, number: int) -> dict[str, Any]:
    """Returns the metric and the value by which a repetition was chosen."""
    value = chosen.scores.by_repetition[number]
    return {"metric": chosen.scores.metric, "split": "val", "value": None if math.isnan(value) else value}
