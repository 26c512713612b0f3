"""Tests what becomes of rows that somebody else wrote into the database: one clear error, and no command to the terminal."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from sqlalchemy import text

from shared.errors import InputError
from shared.search import budget
from shared.search.leases import Leases
from shared.search.monitor import read_searches
from shared.search.results import best_so_far
from shared.search.search_state import SearchProgress, SearchStep, make_study, read_search, write_search
from shared.search.storage import Database
from tests.support.search.drill import Drill


@pytest.fixture
def drill(make_drill: Callable[..., Drill]) -> Drill:
    return make_drill(lease_seconds=60)


@pytest.fixture
def study(database: Database, drill: Drill) -> optuna.Study:
    """Makes a search with one complete trial."""
    made = make_study(database, drill.name, drill.search)
    step = SearchStep(drill.name, "", ("x", "y"), {})
    write_search(database, drill.name, made._study_id, step, drill.search, None, SearchProgress("real", 5, 1, 1))
    budget.fill(database, made, 1, [], repeat_failed=False)
    leases = Leases(database, 60)
    leases.adopt(made._study_id)
    claim = leases.claim(made.study_name, made._study_id, "host/1", "cpu")
    assert claim is not None
    leases.start(claim)
    with database.guarded(leases.guard(claim)):
        database.storage.set_trial_param(claim.trial_id, "x", 0.5, optuna.distributions.FloatDistribution(0, 1))
        database.storage.set_trial_user_attr(claim.trial_id, "repetition", 0)
        database.storage.set_trial_state_values(claim.trial_id, optuna.trial.TrialState.COMPLETE, [0.5])
    leases.finish(claim)
    return made


def write(database: Database, statement: str, study: optuna.Study) -> None:
    """Writes as a neighbour who has the database's password."""
    trial = f"(SELECT trial_id FROM trials WHERE study_id = {study._study_id})"
    with database.transaction() as connection:
        connection.execute(text(statement.replace("TRIAL", trial)), {"name": study.study_name})


def test_an_honest_search_is_read(database: Database, study: optuna.Study, drill: Drill, postgres_url: str) -> None:
    assert best_so_far(postgres_url, study.study_name, drill.search) == {"x": 0.5}


@pytest.mark.parametrize(
    "step",
    [
        "", "no JSON", "[]", "7", "null", "{}", '{"study": 1, "label": "a", "parameters": [], "fixed": {}}',
        '{"study": "s", "label": "", "parameters": "x", "fixed": {}}', '{"study": "s", "label": "", "parameters": [], "fixed": {"x": NaN}}',
        '{"study": "s", "label": "", "parameters": [], "fixed": {"x": {"a": []}}}', "[" * 9999, "\x1b[31m" * 99,
    ],
)  # fmt: skip
def test_a_step_that_is_none(database: Database, study: optuna.Study, step: str) -> None:
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE tailfill_searches SET step = :step WHERE name = :name"),
            {"step": step, "name": study.study_name},
        )
    with pytest.raises(InputError, match=r"^PostgreSQL: the search '.*' is damaged .* `--rerun tune`$") as caught:
        read_search(database, study.study_name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("step", ["no JSON", "[]", "{}", "[" * 9999, "\x1b[31m"])
def test_a_step_that_the_monitor_cannot_read(
    database: Database, study: optuna.Study, postgres_url: str, step: str
) -> None:
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE tailfill_searches SET step = :step WHERE name = :name"),
            {"step": step, "name": study.study_name},
        )
    with pytest.raises(InputError, match="is damaged") as caught:
        read_searches(postgres_url, f"^{study.study_name}$")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial_params SET distribution_json = 'no JSON' WHERE trial_id = TRIAL",
        "UPDATE trial_params SET distribution_json = '{}' WHERE trial_id = TRIAL",
        "UPDATE trial_params SET distribution_json = '[7]' WHERE trial_id = TRIAL",
        """UPDATE trial_params SET distribution_json = '{"name": "os.system", "attributes": {}}' WHERE trial_id = TRIAL""",
        "UPDATE trial_params SET param_value = 'NaN' WHERE trial_id = TRIAL",
        "UPDATE trial_params SET param_value = 'Infinity' WHERE trial_id = TRIAL",
        "UPDATE trial_values SET value = 'NaN' WHERE trial_id = TRIAL",
        "UPDATE trial_values SET value_type = 'INF_POS' WHERE trial_id = TRIAL",
        "UPDATE trial_user_attributes SET value_json = 'no JSON' WHERE trial_id = TRIAL",
        "UPDATE trial_user_attributes SET value_json = '\"first\"' WHERE trial_id = TRIAL",
        "UPDATE trial_user_attributes SET value_json = '1e9' WHERE trial_id = TRIAL",
        "UPDATE trial_user_attributes SET key = 'failure' WHERE trial_id = TRIAL",
    ],
)
def test_a_trial_that_no_worker_wrote(
    database: Database, study: optuna.Study, drill: Drill, postgres_url: str, statement: str
) -> None:
    write(database, statement.replace(":", "\\:"), study)
    with pytest.raises(InputError, match=r"^PostgreSQL: the search '.*' is damaged .* `--rerun tune`$") as caught:
        best_so_far(postgres_url, study.study_name, drill.search)
    assert str(caught.value).isprintable()
