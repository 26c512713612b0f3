"""Finds labels that look wrong by confident learning (Northcutt, Jiang, Chuang 2021), as the library Cleanlab does.

A head on frozen features is trained on all folds but one and asked about the images of that one. A label is suspect if the head is surer of another class
than it is on average of the images that bear that class's label, and all but rules out the given one. The least likely labels come first.

Cleanlab itself is not used: the part that is needed here is `confident_learning`, and it would bring pandas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.split import stratify
from shared.log import Log

FOLDS = 5
COMPONENTS = 256
"""Limits the directions of the features that the head sees: those with the largest variance."""
DECAY = 0.03
"""Sets the weight decay of the head, for features with a mean variance of 1; chosen on Fashion-MNIST (benchmarks/README.md)."""
SUSPECT_BELOW = 0.2
"""Sets the probability of the given answer from which on no label is suspect, however sure the head is of another: between similar classes it is often
wrong itself. Of 200 errors that were planted in Fashion-MNIST this leaves as many among the suspects, and a quarter of the others goes. Lower values miss
errors that are common: if a fifth of a class has another's label, that is what the head expects."""
ITERATIONS = 100
SEED = 0

log = Log("look")


@dataclass(frozen=True)
class Suspicion:
    """Says how well an image's label fits, as an answer to one question."""

    image: int
    given: str
    suggested: str
    confidence: float
    """Gives the out-of-fold probability of the given answer."""
    probability: float
    """Gives that of the likeliest other answer."""
    suspect: bool

    @property
    def margin(self) -> float:
        """Returns the difference of both probabilities, from 0 to 1; below 0.5 the other answer is likelier."""
        return (self.confidence - self.probability + 1) / 2


@dataclass(frozen=True)
class Judged:
    """Holds what is found of the labels of a group."""

    group: str
    ranking: list[Suspicion]
    """Lists every label that could be judged, the worst first."""
    accuracy: float | None = None
    """Gives the share of judged labels that the head would have given, without having seen them."""
    too_few: tuple[str, ...] = ()
    """Lists the classes with too few images to be judged."""
    reason: str | None = None
    """Says, as the end of a sentence, why no label of the group is called suspect."""

    @property
    def suspects(self) -> list[Suspicion]:
        """Returns the labels that look wrong, the worst first."""
        return [each for each in self.ranking if each.suspect]


def judge_labels(
    features: NDArray[np.float32], labels: Labels, schema: LabelSchema, units: NDArray[np.int64]
) -> list[Judged]:
    """Returns what is found of each group, for features `[n, F]` and labels `[n, C]`.

    Images with the same number in `units` `[n]`, such as copies, are in one fold: a head that saw one of them knows the others' labels. A class in fewer
    units than there are folds is not judged.
    """
    inputs = _reduced(features)
    fold = stratify(labels, units, [1 / FOLDS] * FOLDS, SEED) if len(labels) else np.empty(0, np.int64)
    questions = [
        (group, columns, names)
        for group in schema.groups
        for columns, names in _questions(group, schema.slices()[group.name])
    ]
    judged: dict[str, list[Judged]] = {group.name: [] for group in schema.groups}
    with _one_thread():
        for group, columns, names in log.progress(questions, "labels judged", len(questions), "questions"):
            judged[group.name].append(_answer(group, labels[:, columns], names, inputs, fold, units))
    return [_joined(name, parts) for name, parts in judged.items()]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch use one thread: a head is so small that several threads wait for each other for longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _questions(group: LabelGroup, columns: slice) -> list[tuple[list[int], tuple[str, ...]]]:
    """Returns the columns and the answers of each question of a group: which class it is, or for each class whether it is there."""
    every = list(range(columns.start, columns.stop))
    if group.kind == "one":
        return [(every, group.classes)]
    return [([column], (f"not {name}", name)) for column, name in zip(every, group.classes, strict=True)]


def _answer(
    group: LabelGroup,
    labels: Labels,
    names: tuple[str, ...],
    inputs: NDArray[np.float64],
    fold: NDArray[np.int64],
    units: NDArray[np.int64],
) -> Judged:
    """Judges the answers to one question; `labels` are its columns, `[n, k]`."""
    given = np.where((labels < 0).all(axis=1), -1, labels[:, 0] if group.kind == "any" else labels.argmax(axis=1))
    enough = [a for a in range(len(names)) if len(np.unique(units[given == a])) >= FOLDS]
    too_few = tuple(name for a, name in enumerate(names) if a not in enough and (given == a).any())
    if len(enough) < 2:
        few = f"fewer than two classes have {FOLDS} images that are not copies of each other"
        return Judged(group.name, [], None, too_few, few)
    rows = np.flatnonzero(np.isin(given, enough))
    answers = np.searchsorted(enough, given[rows])
    probabilities = _out_of_fold(inputs[rows], answers, fold[rows], len(enough))
    kept = [names[a] for a in enough]
    accuracy = float((probabilities.argmax(axis=1) == answers).mean())
    told = tells_apart(probabilities, answers)
    unlikely = probabilities[np.arange(len(rows)), answers] < SUSPECT_BELOW
    found = confident_learning(probabilities, answers) & unlikely
    ranking = _ranked(rows, answers, probabilities, found & told, kept)
    reason = (
        None
        if told
        else f"the network tells its classes apart no better than chance (right for {100 * accuracy:.0f} %)"
    )
    return Judged(group.name, ranking, accuracy, too_few, reason)


def _joined(group: str, parts: Sequence[Judged]) -> Judged:
    """Returns the answers to all questions of a group as one ranking."""
    ranking = sorted((each for part in parts for each in part.ranking), key=lambda each: each.confidence)
    measured = [(part.accuracy, len(part.ranking)) for part in parts if part.accuracy is not None]
    total = sum(n for _, n in measured)
    accuracy = sum(share * n for share, n in measured) / total if total else None
    reason = next((p.reason for p in parts), None) if all(part.reason for part in parts) else None
    return Judged(group, ranking, accuracy, tuple(name for part in parts for name in part.too_few), reason)


def confident_learning(probabilities: NDArray[np.float64], given: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which labels are off the diagonal of the confident joint, `[n]`, for out-of-fold probabilities `[n, k]` and given classes `[n]`.

    An image counts as of the likeliest class whose probability reaches the mean that this class has on the images labelled so.
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[given == c, c].mean() if (given == c).any() else np.inf for c in range(classes)]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    off: NDArray[np.bool_] = (confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != given)
    return off


def tells_apart(probabilities: NDArray[np.float64], given: NDArray[np.int64]) -> bool:
    """Returns whether the mean recall of the classes is above that of guessing by more than three standard errors."""
    classes = probabilities.shape[1]
    right = probabilities.argmax(axis=1) == given
    sizes = np.bincount(given, minlength=classes)
    recall = np.mean([right[given == c].mean() for c in range(classes)])
    error = np.sqrt(np.sum((1 / classes) * (1 - 1 / classes) / sizes)) / classes
    return bool(recall > 1 / classes + 3 * error)


def _ranked(
    rows: NDArray[np.int64],
    given: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    suspect: NDArray[np.bool_],
    names: Sequence[str],
) -> list[Suspicion]:
    place = np.arange(len(rows))
    confidence = probabilities[place, given]
    others = probabilities.copy()
    others[place, given] = -1
    likeliest = others.argmax(axis=1)
    return [
        Suspicion(int(rows[i]), names[given[i]], names[likeliest[i]], float(confidence[i]), float(others[i, likeliest[i]]), bool(suspect[i]))
        for i in np.argsort(confidence, kind="stable").tolist()
    ]  # fmt: skip


def _reduced(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the principal components of the features, `[n, at most COMPONENTS]`, with a mean variance of 1."""
    centred = features.astype(np.float64) - features.mean(axis=0) if len(features) else features.astype(np.float64)
    vectors = np.linalg.eigh(centred.T @ centred / max(len(features), 1)).eigenvectors
    reduced = centred @ vectors[:, ::-1][:, : min(COMPONENTS, max(len(features) - 1, 1))]
    scaled: NDArray[np.float64] = reduced / (np.sqrt(np.square(reduced).mean()) or 1.0) if len(reduced) else reduced
    return scaled


def _out_of_fold(
    inputs: NDArray[np.float64], answers: NDArray[np.int64], fold: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Returns the probabilities of each answer, `[n, classes]`, by a head that was trained on the other folds."""
    out = np.full((len(inputs), classes), 1 / classes)
    x, y = torch.from_numpy(inputs), torch.from_numpy(answers)
    for number in np.unique(fold).tolist():
        held_out = torch.from_numpy(fold == number)
        weights = _fit(x[~held_out], y[~held_out], classes)
        out[fold == number] = torch.softmax(x[held_out] @ weights[:-1] + weights[-1], dim=1).numpy()
    return out


def _fit(x: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor:
    """Returns the weights of a logistic regression with the bias as its last row, `[F + 1, classes]`."""
    weights = torch.zeros(x.shape[1] + 1, classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(x @ weights[:-1] + weights[-1], y)
        value = value + DECAY / 2 * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()
