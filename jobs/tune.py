"""`tune`: searches the hyperparameters of one experiment.

`run` coordinates the search in one process, on the CPU, and commits the result. `work` is a worker; any number of them may start and end
at any time, and each may go from search to search. They share state in PostgreSQL (`shared.search`).

Commits `best.json` (the best trial's parameters by path: those taken over from another experiment and those found; of several
objectives also the Pareto front, from which they are; of a repeated search also the best trial of each repetition), `trials.parquet`,
`importance.json` (of the first objective).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.checkpoints import Values
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import apply_parameters
from shared.config.seeds import repetition_seed
from shared.config.stages import Arm, TuneConfig
from shared.config.task import BEGINS, ENDS
from shared.context import Context
from shared.errors import ConfigError
from shared.log import Log
from shared.search import identity
from shared.search.best_parameters import taken_over
from shared.search.trial_images import AddedImages, make_images, role_of_pool
from shared.usage import ComputeUsage
from shared.weights.inputs import fetched_models

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shared.classifier.fit import EpochRecord, TrainingData
    from shared.data.imageset import ImageSet
    from shared.search.coordinator import Outcome, Usage
    from shared.search.results import TrialRecord
    from shared.search.storage import Database
    from shared.search.visits import OpenSearch
    from shared.search.worker import TrialHandle

MEAN_EPOCHS = 5  # the objective is the mean over this many last epochs


def run(config: TuneConfig, context: Context) -> Manifest:
    """Coordinates the search until it is over, and commits what it found."""
    from shared.search.coordinator import Coordinator
    from shared.search.metrics_server import metrics_served
    from shared.search.search_state import SearchSpec
    from shared.search.spending import Spending
    from shared.search.storage import Database, quiet_optuna

    inherited, name = taken_over(config, context), search_name(config, context)
    quiet_optuna()
    database = Database(_database_url(context))
    try:
        coordinator = Coordinator(
            database,
            SearchSpec(name, config.search, config.seed, context.task.experiment, config.repetitions),
            apply_parameters(config.arm, inherited),
            context.stop,
            warm_starts(config, context),
            Spending(database, context.artifacts).gpu_seconds,
        )
        with metrics_served(context.settings, context.task.study, f"^{name}$"):
            outcome = coordinator.run()
        usage = database.call("reading the usage", coordinator.usage)
        unfinished = database.call("reading what is unfinished", coordinator.unfinished_checkpoints)
    finally:
        database.close()
    # with a larger budget, their trials continue under another key; those under earlier keys stay as they are
    places = [place.partition("/") for place in unfinished]
    names = [name for key, _, name in places if key == context.task.key]
    return _commit(config, context, inherited, outcome, usage, names)


def work(open_contexts: Callable[[], Sequence[Context]]) -> None:
    """Runs trials of the searches of the contexts, which are asked for again at each look, until all of them are closed.

    Raises Stopped (the trial is queued again), UnavailableError and InputError.
    """
    since = time.monotonic()  # importing modules counts, as the GPU is held meanwhile
    contexts = open_contexts()
    if not contexts:
        return
    from shared.device import device_name, pick_device
    from shared.search.storage import Database, quiet_optuna
    from shared.search.visits import OpenSearch, Visits

    quiet_optuna()
    device = device_name(pick_device(contexts[0].task.resources.device))
    database = Database(_database_url(contexts[0]))
    known = dict[str, OpenSearch]()

    def searches() -> list[OpenSearch]:
        contexts = open_contexts()
        for context in contexts:
            if context.task.key not in known:
                known[context.task.key] = _open_search(context, database, device, since if not known else None)
        return [known[context.task.key] for context in contexts]

    try:
        Visits(searches).run()
    finally:
        database.close()


def _open_search(context: Context, database: Database, device: str, since: float | None) -> OpenSearch:
    """Returns a search as a worker visits it; `since` says when its first visit began, None when it does."""
    from shared.device import release_memory
    from shared.search.heartbeat import Heartbeat
    from shared.search.search_state import SearchSpec
    from shared.search.visits import OpenSearch
    from shared.search.worker import Worker

    task, config = context.task, context.task.config
    assert isinstance(config, TuneConfig)
    name, log = search_name(config, context), Log("tune")
    spec = SearchSpec(name, config.search, config.seed, repetitions=config.repetitions)
    worker = Worker(database, spec, StoredCheckpoints(context), context.stop, device)

    @contextmanager
    def visit() -> Iterator[ArmObjective]:
        nonlocal since
        begun, held_before = since or time.monotonic(), worker.held_seconds()
        since = None
        log.info(BEGINS, key=task.key, experiment=task.experiment)
        objective = ArmObjective(config, context)
        with Heartbeat(
            database, name, device, lambda: time.monotonic() - begun - (worker.held_seconds() - held_before)
        ):
            yield objective
        objective.release()
        release_memory()

    return OpenSearch(task.key, worker, visit, lambda: log.info(ENDS, key=task.key, experiment=task.experiment))


def search_name(config: TuneConfig, context: Context) -> str:
    """Returns the name of the search, under which PostgreSQL holds it."""
    task = context.task
    return identity.search_name(task.study, config, task.inputs, context.artifacts.generation("tune", task.key))


def warm_starts(config: TuneConfig, context: Context) -> list[dict[str, Any]]:
    """Returns the points to try first: the best trials of the input `warm_start`, with those of their values that lie in this search's space."""
    import pyarrow.parquet as pq

    from shared.search.results import warm_points

    if "warm_start" not in context.task.inputs:
        return []
    source = context.input("warm_start")
    trials = pq.read_table(context.fetch(source, "trials.parquet"))
    points = warm_points(trials, json.loads(context.fetch(source, "best.json").read_bytes()), config.search.space)
    Log("tune").info("warm start", source=f"{source.study}/{source.run.experiment}", trials=len(points))
    return points


class StoredCheckpoints:
    """Keeps the checkpoints of trials in the store, under this task's key."""

    def __init__(self, context: Context) -> None:
        self._artifacts, self.key = context.artifacts, context.task.key

    def save(self, name: str, files: Mapping[str, Path], values: Values) -> None:
        """Writes the checkpoint of that name."""
        self._artifacts.save_checkpoint("tune", self.key, name, files, values)

    def load(self, key: str, name: str) -> tuple[dict[str, Path], Values] | None:
        """Returns a checkpoint of this search, or None. `key` is the search's key at that time, which depends on its budget."""
        return self._artifacts.load_checkpoint("tune", key, name)

    def discard(self, key: str, name: str) -> None:
        """Removes a checkpoint that is no longer needed."""
        self._artifacts.discard_checkpoint("tune", key, name)


class ArmObjective:
    """Trains the arm with a trial's parameters; what trials have in common is built once."""

    def __init__(self, config: TuneConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._arm = apply_parameters(config.arm, taken_over(config, context))
        self._sets: tuple[ImageSet, ImageSet, NDArray[Any]] | None = None
        self._prepared: Manifest | None = None
        """Refers to the data set from which `_sets` are."""
        self._data: TrainingData | None = None
        self._added: AddedImages | None = None
        """Holds the images with which `_data` was built, beside `_sets`."""

    def prepare(self) -> None:
        """Builds the arm's training data, so that no trial is held meanwhile, unless each trial makes its own images."""
        if self._data is None and self._config.images is None:
            self._added = self._pool(0)
            self._data = self._build(self._arm, self._added, self._data_set(0))

    def release(self) -> None:
        """Releases what was built, so that the process can do other work."""
        self._sets = self._prepared = self._data = self._added = None

    def __call__(self, trial: TrialHandle) -> list[float]:
        """Trains, and returns the mean of each objective over the last five epochs of the classifier that would be deployed."""
        from shared.classifier.fit import fit
        from shared.classifier.snapshot import deployed

        arm, repetition = apply_parameters(self._arm, trial.parameters), trial.repetition or 0
        if self._config.images is not None:
            added: AddedImages | None = make_images(self._config, arm, repetition, self._context, trial.stop)
        else:
            added = self._pool(repetition)
        prepared = self._data_set(repetition)
        if self._data is None or (self._added, self._prepared) != (added, prepared) or not self._data.matches(arm):
            self._data = None  # before the new one is built: two may not fit in memory
            self._data, self._added = self._build(arm, added, prepared), added
        self._report_earlier(trial)
        search = self._config.search
        fitted = fit(
            arm,
            self._data,
            search.epochs,
            # the same for all trials of a repetition and for its final training, which differ only in their parameters
            repetition_seed(self._config.seed, repetition),
            trial.checkpoints,
            trial.stop,
            lambda record: trial.report(record.epoch, self._values(record)),
            search.checkpoint_every,
        )
        last = [self._values(record) for record in deployed(fitted.history, search.epochs)[-MEAN_EPOCHS:]]
        return [sum(values) / len(last) for values in zip(*last, strict=True)]

    def _report_earlier(self, trial: TrialHandle) -> None:
        """Reports the epochs of the checkpoint: a worker that was killed after a checkpoint may not have reported its last epoch."""
        from shared.classifier.snapshot import PROGRESS, records_from_json

        found = trial.checkpoints.load()
        if found is not None:
            for record in records_from_json(json.loads(found[0][PROGRESS].read_bytes())["history"]):
                trial.report(record.epoch, self._values(record))

    def _values(self, record: EpochRecord) -> list[float]:
        return [float(getattr(record, objective)) for objective in self._config.search.objectives]

    def _pool(self, number: int) -> AddedImages | None:
        """Returns the pool of generated images of a repetition; None for an arm with real images only."""
        if self._config.arm.images == "real":
            return None
        context, role = self._context, f"score/{number}"
        scores = context.input(role) if role in context.task.inputs else None
        return AddedImages(context.input(f"generate/{number}"), scores)

    def _data_set(self, repetition: int) -> Manifest:
        """Returns the data set of a repetition."""
        return self._context.input(role_of_pool("prepare", repetition, self._context.task.inputs))

    def _build(self, arm: Arm, added: AddedImages | None, prepared: Manifest) -> TrainingData:
        import pyarrow.parquet as pq

        from shared.classifier.fit import TrainingData
        from shared.classifier.runtime import Runtime
        from shared.classifier.training_set import effective_training_set
        from shared.data.dataset import rare_classes, read_info
        from shared.data.imageset import read_shards
        from shared.data.review import arm_review
        from shared.device import pick_device

        context = self._context
        info = read_info(context.fetch(prepared, "dataset.json"))
        rare = rare_classes(arm.rare, info)
        if self._sets is None or self._prepared != prepared:
            self._sets = None  # two may not fit in memory, either
            images = read_shards(context.fetch_all(prepared, "images"), info.schema_)
            self._sets, self._prepared = (images.of("train"), images.of("val"), rare), prepared
        train, val, _ = self._sets
        generated = scores = None
        if added is not None:
            generated = read_shards(context.fetch_all(added.images, "images"), info.schema_)
            if added.scores is not None:
                scores = pq.read_table(context.fetch(added.scores, "scores.parquet"))
        review = arm_review(arm.accept, self._config.weights, context.settings, context.scratch / "review")
        training = effective_training_set(arm, train, generated, scores, rare, review)
        runtime = Runtime(
            pick_device(context.task.resources.device),
            context.task.resources,
            stop=context.stop,
            cache=context.settings.cache / "features",
            fetched=fetched_models(context),
            memory=context.settings.memory,
        )
        return TrainingData.build(arm, training, val, rare, runtime)


def _commit(
    config: TuneConfig,
    context: Context,
    inherited: dict[str, Any],
    outcome: Outcome,
    usage: Usage,
    unfinished: Sequence[str],
) -> Manifest:
    from dataclasses import asdict

    import pyarrow.parquet as pq

    from shared.search.results import describe_front, importance, trials_table
    from shared.search.search_state import directions

    best = {
        "parameters": {**inherited, **outcome.parameters},
        "value": outcome.value,
        "number": outcome.number,
        "direction": directions(config.search)[0],
        "objective": config.search.objective,
        **describe_front(outcome.front, config.search, inherited),
        "repetitions": [_winner(trial, inherited) for trial in outcome.winners],
    }
    files = _files(context.scratch, best, importance(outcome.steps))
    files["trials.parquet"] = context.scratch / "trials.parquet"
    table = trials_table(outcome.steps, list(config.search.space), config.search.objectives)
    pq.write_table(table, files["trials.parquet"])
    states = [trial.state for result in outcome.steps for trial in result.trials]
    context.earlier_seconds = max(usage.wall_seconds - context.seconds(), 0.0) + context.earlier_seconds
    summary = {
        "trials": states.count("complete") + states.count("pruned"),
        "complete": states.count("complete"),
        "pruned": states.count("pruned"),
        "failed": states.count("failed"),
        "best": outcome.value,
        "parameters": best["parameters"],
        "repetitions": [winner["parameters"] for winner in best["repetitions"]],
        "objective": config.search.objective,
        "ended": outcome.ended,
    }
    Log("tune").info("search over", **summary, **asdict(usage))
    devices = [result.device for result in outcome.steps]
    spent = ComputeUsage(
        gpu=usage.gpu_seconds,
        cpu=max(usage.used_seconds - usage.gpu_seconds, 0.0),
        gpu_lost=usage.gpu_lost_seconds,
        cpu_lost=max(usage.lost_seconds - usage.gpu_lost_seconds, 0.0),
    )
    return context.commit(files, summary, max(set(devices), key=devices.count), spent, unfinished)


def _winner(trial: TrialRecord | None, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the best trial of a repetition as `best.json` has it; without one, the parameters that the arm has anyway."""
    if trial is None:
        return {"parameters": dict(inherited), "value": None, "number": None}
    return {"parameters": {**inherited, **trial.parameters}, "value": trial.value, "number": trial.number}


def _files(folder: Path, best: dict[str, Any], shares: Mapping[str, float]) -> dict[str, Path]:
    files = {"best.json": folder / "best.json", "importance.json": folder / "importance.json"}
    files["best.json"].write_text(json.dumps(best, indent=1))
    files["importance.json"].write_text(json.dumps(dict(shares), indent=1))
    return files


def _database_url(context: Context) -> str:
    if context.settings.database_url is None:
        raise ConfigError(
            "DATABASE_URL: is not set; a search needs PostgreSQL, postgresql://user:password@host:port/database"
        )
    return context.settings.database_url.get_secret_value()
