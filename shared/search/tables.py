"""Our tables beside Optuna's: one row a search, one lease a trial."""

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
"""
