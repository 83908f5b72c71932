"""The state of each trial, its journal, and who may write: one driver per sweep (lease), one worker per trial (claim)."""
