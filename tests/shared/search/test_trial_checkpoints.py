"""Tests two owners of one trial: what the first writes after it lost the trial changes nothing for the second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from sqlalchemy import text

from shared.search import budget
from shared.search.leases import Claim, LeaseLost, Leases
from shared.search.search_state import SearchStep, make_study, write_search
from shared.search.storage import Database
from shared.search.trial_checkpoints import FencedCheckpoints, discard
from tests.support.search.drill import Drill, FolderTrialCheckpoints


@pytest.fixture
def study(database: Database, make_drill: Callable[..., Drill]) -> optuna.Study:
    """Makes an open search of one queued trial."""
    drill = make_drill()
    made = make_study(database, drill.name, drill.search)
    write_search(database, drill.name, made._study_id, SearchStep(drill.name, "", ("x", "y"), {}), drill.search, None)
    budget.fill(database, made, 1, [], repeat_failed=False)
    Leases(database, 2).adopt(made._study_id)
    return made


class Owner:
    """Holds a claim, and its view of the checkpoints."""

    def __init__(self, database: Database, study: optuna.Study, folder: Path) -> None:
        self._leases, self._folder = Leases(database, 60), folder
        claim = self._leases.claim(study.study_name, study._study_id, "test", "cpu")
        assert claim is not None
        self._leases.start(claim)
        self.claim: Claim = claim
        self.checkpoints = FencedCheckpoints(
            FolderTrialCheckpoints(folder),
            claim,
            "trial-0",
            lambda e, p, age: self._leases.checkpointed(claim, e, p, age),
        )

    def save(self, state: str, epoch: int) -> None:
        """Saves a checkpoint that holds a word."""
        file = self._folder / "word"
        file.write_text(state)
        self.checkpoints.save({"state.json": file}, epoch=epoch)

    def load(self) -> str | None:
        """Returns the word of the checkpoint."""
        found = self.checkpoints.load()
        return None if found is None else found[0]["state.json"].read_text()


def _take_away(database: Database, study: optuna.Study, claim: Claim) -> None:
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE tailfill_leases SET expires_at = clock_timestamp() - interval '1 s' WHERE trial_id = :trial"),
            {"trial": claim.trial_id},
        )
    assert Leases(database, 0.001, max_retries=9).reap(study._study_id) == 1


def test_late_owner_overwrites_nothing(database: Database, study: optuna.Study, tmp_path: Path) -> None:
    late = Owner(database, study, tmp_path)
    assert late.load() is None
    late.save("first", 1)
    _take_away(database, study, late.claim)
    late.claim.check()  # by its own clock it still holds the trial
    owner = Owner(database, study, tmp_path)
    with pytest.raises(LeaseLost):
        late.save("late", 2)
    assert owner.load() == "first"
    owner.save("owner's", 2)
    late.claim.revoked = False  # as if it had written just before it learned of the loss
    with pytest.raises(LeaseLost):
        late.save("later", 3)
    assert (owner.claim.epochs, owner.load()) == (2, "owner's")
    _take_away(database, study, owner.claim)
    assert Owner(database, study, tmp_path).load() == "owner's"


def test_one_that_counts_is_kept_and_none_at_the_end(database: Database, study: optuna.Study, tmp_path: Path) -> None:
    owner = Owner(database, study, tmp_path)
    for epoch in (1, 2, 3):
        owner.save(str(epoch), epoch)
        assert [path.name for path in tmp_path.glob("trial-*")] == [f"trial-0-1-{epoch}.json"]
    discard(FolderTrialCheckpoints(tmp_path), owner.claim.checkpoint)
    discard(FolderTrialCheckpoints(tmp_path), None)
    assert not list(tmp_path.glob("trial-*"))
