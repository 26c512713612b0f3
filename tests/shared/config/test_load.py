"""Tests how study files are read, and that every error names path, value, place and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.config.dataset import Dataset
from shared.config.generation import AnyFinetune
from shared.config.load import load_study, parse, study_from_tree, study_tree
from shared.config.search import Choice, FloatRange, IntRange
from shared.errors import ConfigError

STUDIES = Path(__file__).parents[3] / "studies"


def _names(union: Any, key: str) -> str:
    """The values of `key` by which the members of a union are told apart."""
    return ", ".join(repr(*get_args(kind.model_fields[key].annotation)) for kind in get_args(get_args(union)[0]))


SOURCES, GENERATORS = _names(Dataset, "source"), _names(AnyFinetune, "generator")
MINIMAL = """\
name: tiny
dataset: {source: garments, resolution: 32}
finetune: {generator: pixel}
verdict: none
experiments:
  - {name: real}
"""


def write(folder: Path, text: str = MINIMAL) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda p: p.name)
def test_every_study_that_we_ship_validates(path: Path) -> None:
    assert load_study(path).name == path.stem


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "training: {lr: 1e-05, weight_decay: 1E3, dropout: .5}\n")
    training = load_study(path).written.training
    assert (training.lr, training.weight_decay, training.dropout) == (1e-05, 1000.0, 0.5)


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("finall.seeds=3", ["finall: unknown key", "did you mean final?", "in --set finall.seeds=3"]),
        ("training.lrr=3", ["training.lrr: unknown key", "did you mean lr?"]),
        ("training.lr='1e-05'", ["training.lr: must be a number", '"1e-05" (a string)']),
        ("training.lr=-1", ["training.lr: must be > 0", "got -1"]),
        ("search.trials=1.5", ["search.trials: must be a whole number, got 1.5"]),
        ("final.seeds=yes please", ["final.seeds: must be a whole number", '"yes please" (a string)']),
        ("dataset.source=webdataset", ["dataset.source: must be one of", "'garments'", 'got "webdataset"']),
        ("dataset.source=folders", ["dataset.source: must be one of 'garments'", "; did you mean folder?"]),
        ("dataset={}", ["dataset.source: must be one of", "which is missing"]),
        ("dataset.resolution=8", ["dataset.resolution: must be >= 16, got 8"]),
        ("finetune.generator=gan", [f"finetune.generator: must be one of {GENERATORS}", 'got "gan"']),
        ("finetune.generator=pixels", ["finetune.generator: must be one of", "'pixel'", "; did you mean pixel?"]),
        ("training.loss=weigthed", ["training.loss: must be one of", "'plain'", "; did you mean weighted?"]),
        ("experiments.0.images=reel", ["experiments[0].images: must be one of", "; did you mean real?"]),
        ("verdict={metric: loss}", ["verdict.metric: must be one of", '"loss"']),
        ("name=A B", ["name: must be 1 to 40 lower-case letters", '"A B"']),
        (
            "search.space={training.lrr: {low: 1, high: 2}}",
            ["search.space: 'training.lrr' is not a value", "did you mean training.lr"],
        ),
        ("search.space={dataset.seed: {low: 1, high: 2}}", ["'dataset.seed' cannot be searched"]),
        ("search.space={training.lr: {low: 2, high: 1}}", ["low must be below high, got 2.0 and 1.0"]),
        ("search.space={training.loss: {low: 1, high: 2}}", ["'training.loss' is not a number", "kind: choice"]),
        ("search.space={training.lr: {low: 0, high: 1, log: true}}", ["a log scale needs low > 0"]),
        ("experiments.real.training.lrr=1", ["experiments[0].training.lrr: unknown key", "did you mean lr?"]),
        ("experiments.0.parameters_from=other", ["parameters_from: must name an experiment above, got 'other'"]),
        ("accept.plausibility=[0.9, 0.1]", ["accept", "first bound must be below the second"]),
        ("finetune.resolution=64", ["finetune.resolution: must be <= dataset.resolution (32), got 64"]),
        ("classifier.head=512", ["classifier.head: must be a list, got 512"]),
        ("nonsense", ["--set nonsense: must be path.to.key=value"]),
        ("experiments.9.seed=1", ["'9' is not an element", "real"]),
        ("name.first=x", ["name is a plain value"]),
        ("training.lr=[", ["not valid YAML"]),
    ],
)
def test_an_error_names_path_value_and_place(tmp_path: Path, setting: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_study(write(tmp_path), [setting])
    for part in parts:
        assert part in str(error.value)
    assert error.value.exit_code == 2


KINDS = "true or false or a whole number or a number or a string"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("search.space={training.lr: {kind: foo}}", "search.space.training.lr.kind: must be one of 'float', 'int', 'choice', got \"foo\""),
        ("search.space={training.lr: {low: 0, high: 1}}", "search.space.training.lr.low: must be > 0, got 0.0; name values that training.lr can"),
        ("search.space={training.dropout: {values: [0, 1]}}", "search.space.training.dropout.values[1]: must be < 1, got 1; name values that"),
        ("search.space={training.refit_epochs: {low: 1, high: 2}}", "search.space.training.refit_epochs.low: must be a whole number, got 1.0; give it `kind"),
        ("search.space={training.lr: {values: [1.5]}}", "search.space.training.lr.values: must have at least 2 entries, got [1.5]"),
        ("search.space={training.lr: {values: [1, null]}}", f"search.space.training.lr.values[1]: must be {KINDS}, got null"),
        ("search.budget.gpu_hours=x", 'search.budget.gpu_hours: must be a number or null, got "x"'),
        ("search.objective={}", "search.objective: must be one of 'val_loss', "),
        ("classifier.pretrained=3", "classifier.pretrained: must be true or false or a string, got 3"),
        ("accept.copies=0.05", "accept.copies: must be 'refuse' or 'allow', no longer a share of the images, got 0.05; write refuse"),
        ("accept.copies=0", "accept.copies: must be 'refuse' or 'allow', no longer a share of the images, got 0; write allow"),
        ("accept.plausibility=[0.1]", "accept.plausibility: must have at least 2 entries, got [0.1]"),
        ("accept.plausibility=[0, 0.1, 0.2]", "accept.plausibility: must have at most 2 entries, got [0, 0.1, 0.2]"),
        ("experiments=[]", "experiments: must have at least 1 entry, got []"),
        ("experiments.0.images=3", "experiments[0].images: must be one of 'real', 'real+synthetic' or 'real+copies' or null, got 3"),
        ("verdict=foo", "verdict: must be a mapping or 'none', got \"foo\""),
        ("verdict={baseline: other}", "verdict.baseline: must name an experiment, got 'other'; there are real"),
        ("dataset.source=null", f"dataset.source: must be one of {SOURCES}, got null"),
        ("dataset={source: csv, root: x, groups: {a b: {column: x}}}", "dataset.groups.a b: must be 1 to 60 letters, digits, underscores and"),
        ("dataset={source: csv, root: x, groups: {}}", "dataset.groups: must have at least 1 entry, got {}"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_in_our_own_words(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_study(write(tmp_path), [setting])
    said = str(error.value)
    assert said.startswith(message)
    assert said.endswith(f"in --set {setting}")
    assert "\n" not in said


def test_an_error_in_a_file_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "training:\n  dropout: 0.1\n  lr: fast\n")
    with pytest.raises(
        ConfigError, match=r'training\.lr: must be a number, got "fast" \(a string\) in .*study\.yaml line 9'
    ):
        load_study(path)


BETWEEN = """\
name: tiny
dataset: {source: garments, resolution: 32}
experiments:
  - {name: real}
  - {name: other, search: {trials: 9}}
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "finetune: {generator: pixel,\n  resolution: 64}\n",
            r"finetune\.resolution: must be <= .*got 64 in .* line 7",
        ),
        ("finetune: {generator: pixel}\nsearch:\n  space: {}\n", r"search\.space: is empty.* in .* line 8"),
        (
            "finetune: {generator: pixel}\nsearch:\n  space:\n    training.lrr: {low: 1, high: 2}\n",
            r"search\.space: 'training\.lrr' is not a value.* in .* line 9",
        ),
        ("finetune: {generator: pixel}\nfinal:\n  seeds: 2\n", r"final\.seeds: must be >= 6 .* in .* line 8"),
        (
            "finetune: {generator: pixel}\n",
            r"experiments\[1\]\.search\.trials: must be a multiple of .*got 9; .* in .* line 5",
        ),
    ],
)
def test_an_error_between_sections_names_its_line(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        load_study(write(tmp_path, BETWEEN + text))


def test_what_set_replaced_is_no_place(tmp_path: Path) -> None:
    text = MINIMAL + "search: {space: {training.loss: {values: [plain, weighted]}}}\n"
    with pytest.raises(ConfigError, match=r"is not a number.* in --set search\.space="):
        load_study(write(tmp_path, text), ["search.space={training.loss: {low: 1, high: 2}}"])


def test_what_set_put_into_an_experiment_is_the_place(tmp_path: Path) -> None:
    text = MINIMAL + "search: {space: {training.lr: {low: 0.1, high: 0.2}}}\n"
    with pytest.raises(ConfigError, match=r"training\.rl.* in --set experiments\.0\.search="):
        load_study(write(tmp_path, text), ["experiments.0.search={space: {training.rl: {low: 0.1, high: 0.2}}}"])


def test_of_many_errors_the_first_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    text = MINIMAL + "".join(f"k{number}: 1\n" for number in range(60))
    with pytest.raises(ConfigError) as caught:
        load_study(write(tmp_path, text))
    *listed, last = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in listed] == [f"k{number}" for number in range(20)]
    assert last == "and 40 more errors"


def test_an_endless_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested more than 40 deep"):
        load_study(write(tmp_path, MINIMAL), ["training=&a [*a]"])


def test_a_path_of_the_space_may_have_any_number_of_parts(tmp_path: Path) -> None:
    sets = [
        "generate.image_to_image={share: 0.5}",
        "experiments.0.images=real+synthetic",
        "search.space={augmentation: {values: [none, soft]}}",
        "search.space.generate.image_to_image.strength={values: [0.4, 0.6]}",
        "search.space.augmentation.values=[soft, hard]",
        "search.space.training.lr={low: 0.1, high: 0.3}",
        "search.space.training.lr.high=0.2",
    ]
    assert load_study(write(tmp_path, MINIMAL), sets).written.search.space == {
        "augmentation": Choice(values=("soft", "hard")),
        "generate.image_to_image.strength": Choice(values=(0.4, 0.6)),
        "training.lr": FloatRange(low=0.1, high=0.2),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        ("- 1\n", "must be a mapping"),
        ("name: [\n", "line 2: not valid YAML"),
        ("name: a\nname: b\n", "line 2: the key 'name' is used twice"),
        ("name: !!python/object:os.system x\n", "not valid YAML"),
        ("name: " + "[" * 60 + "]" * 60, "nested more than 40 deep"),
        ("name: x\n", "dataset: is required and missing"),
        (
            "name: 2026-01-01\n",
            r"^name: must be a finite number, .* got datetime.date\(2026, 1, 1\) in .* line 1; quote dates",
        ),
        (
            "search:\n  budget: {wall_hours: .nan}\n",
            r"^search.budget.wall_hours: must be a finite number, .* got nan in .* line 2",
        ),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_study(tmp_path / "nowhere.yaml")


def test_an_experiment_that_stands_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the name 'real' is used twice"):
        load_study(write(tmp_path, MINIMAL + "  - {name: real}\n"))


def test_a_verdict_asks_for_enough_seeds_and_equal_budgets(tmp_path: Path) -> None:
    text = MINIMAL.replace("verdict: none", "verdict: {baseline: real}") + "  - {name: other, images: real+copies}\n"
    assert load_study(write(tmp_path, text)).written.final.seeds == 10
    with pytest.raises(
        ConfigError, match=r"final\.seeds: must be >= 6 for a verdict \(2/2\^n <= alpha/m, and at least 6\), got 5"
    ):
        load_study(write(tmp_path, text), ["final.seeds=5"])
    assert load_study(write(tmp_path, text), ["final.seeds=5", "verdict.provisional=true"]).written.final.seeds == 5
    with pytest.raises(
        ConfigError, match=r"experiments\[1\]\.search\.trials: must equal that of the baseline real \(40\)"
    ):
        load_study(write(tmp_path, text), ["experiments.other.search.trials=30"])
    with pytest.raises(
        ConfigError, match=r"experiments\[1\]\.parameters_from: an arm with a verdict runs its own search"
    ):
        load_study(write(tmp_path, text), ["experiments.other.parameters_from=real"])


def test_the_kind_of_a_range_is_seen_from_its_keys(tmp_path: Path) -> None:
    space = "{training.lr: {low: 1, high: 2}, training.batch_size: {kind: int, low: 8, high: 9}, augmentation: {values: [soft, hard]}}"
    found = load_study(write(tmp_path), [f"search.space={space}"]).written.search.space
    assert found == {
        "training.lr": FloatRange(low=1, high=2),
        "training.batch_size": IntRange(kind="int", low=8, high=9),
        "augmentation": Choice(values=("soft", "hard")),
    }


def test_set_reaches_into_a_search_space(tmp_path: Path) -> None:
    text = MINIMAL + "search: {space: {training.lr: {low: 0.1, high: 0.2}}}\n"
    study = load_study(write(tmp_path, text), ["search.space.training.lr.high=0.9"])
    assert study.written.search.space["training.lr"] == FloatRange(low=0.1, high=0.9)


def test_a_study_survives_its_own_json(tmp_path: Path) -> None:
    study = load_study(STUDIES / "paper.yaml")
    assert study_from_tree(study_tree(study)) == study


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_study_or_one_clear_error(text: str) -> None:
    try:
        tree, places = parse(text, "study.yaml")
        study_from_tree(tree, places)
    except ConfigError as error:
        assert str(error)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["name", "dataset", "finetune", "experiments", "verdict", "training", "search", "rare", "classifier", "generate"]


@example({"verdict": {"\x1e\r": None}})
@given(st.dictionaries(st.sampled_from(KEYS), plain, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_values_under_real_keys_give_one_clear_error(values: dict[str, object]) -> None:
    tree = {**yaml.safe_load(MINIMAL), **values}
    try:
        study_from_tree(tree)
    except ConfigError as error:
        assert all(line.strip() for line in str(error).splitlines())
        assert str(error).splitlines() == str(error).split("\n")
        assert not any(
            word in str(error) for word in ("nput should", "after validation", "tuple", "dictionary", "alid ")
        )
