"""Our tables beside Optuna's: one row a search, one lease a trial, one row a worker; and what SQL says of a lease."""

from __future__ import annotations

TABLES = """
CREATE TABLE IF NOT EXISTS tailfill_leases (
  trial_id integer PRIMARY KEY REFERENCES trials (trial_id) ON DELETE CASCADE,
  study_id integer NOT NULL,
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'held', 'done', 'withdrawn')),
  owner text,                                       -- token of the claim that holds it: the fence
  worker text,                                      -- host and process, for people
  device text,
  expires_at timestamptz,
  claimed_at timestamptz,
  claims integer NOT NULL DEFAULT 0,                -- times it was taken up
  epochs integer NOT NULL DEFAULT 0,                -- done in its last checkpoint
  checkpoint text,                                  -- where that checkpoint is: task key/name
  checkpoint_at timestamptz,
  retries integer NOT NULL DEFAULT 0,               -- workers lost since that checkpoint
  losses integer NOT NULL DEFAULT 0,                -- workers lost in all
  used_seconds double precision NOT NULL DEFAULT 0, -- held, in all
  lost_seconds double precision NOT NULL DEFAULT 0, -- of these, work that was lost with a worker
  gpu_seconds double precision NOT NULL DEFAULT 0   -- of the used ones, on a GPU
);
CREATE INDEX IF NOT EXISTS tailfill_leases_by_state ON tailfill_leases (study_id, state);
CREATE TABLE IF NOT EXISTS tailfill_searches (
  name text PRIMARY KEY,
  study_id integer NOT NULL,                        -- Optuna study of the step that is searched now
  step text NOT NULL,                               -- that step, as JSON
  settings text NOT NULL,                           -- digest of the search settings of the coordinator that wrote last
  began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed text,                                      -- why no trial is handed out any more; null while open
  ticked_at timestamptz                             -- last sign of a coordinator
);
-- for whoever looks on; columns of their own statement, as tables made before have none
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS experiment text;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS wanted integer NOT NULL DEFAULT 0;       -- finished trials of the step
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS position integer NOT NULL DEFAULT 1;     -- of the step, from 1
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS steps integer NOT NULL DEFAULT 1;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS lease_seconds double precision NOT NULL DEFAULT 90;
CREATE TABLE IF NOT EXISTS tailfill_workers (
  worker text PRIMARY KEY,                          -- as in the leases
  search text NOT NULL,
  device text NOT NULL,
  seen_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS tailfill_idle (          -- made last: where it is, all tables are
  process uuid PRIMARY KEY,                         -- of a worker, alive or not; never removed
  search text NOT NULL,
  gpu_seconds double precision NOT NULL             -- for which it had a GPU and no trial
);
"""

HELD_SECONDS = (
    "CASE WHEN l.state = 'held' THEN extract(epoch FROM "
    "greatest(least(clock_timestamp(), l.expires_at) - l.claimed_at, interval '0')) ELSE 0 END"
)
"""For how long the lease row `l` is held by now, beyond what `used_seconds` counts; as a reaper would count it."""
GPU_SECONDS = f"(l.gpu_seconds + CASE WHEN l.device = 'cpu' THEN 0 ELSE {HELD_SECONDS} END)"
"""For how long the trial of the lease row `l` has had a GPU, by now."""


def idle_gpu_seconds(condition: str) -> str:
    """For how long workers of the searches with that `condition` on `search` have had a GPU and no trial: they start, and build features."""
    return f"(SELECT coalesce(sum(i.gpu_seconds), 0) FROM tailfill_idle i WHERE i.search {condition})"
