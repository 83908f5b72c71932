"""Swimmer: swim forward with three links; O = 8, A = 2, never terminates.

No reference returns: D4RL has none for it. Where a dataset's metadata has them, as ref_min_score and ref_max_score, they are used."""

IDS = ("Swimmer-v5", "Swimmer-v4")
TIME_LIMIT = 1000
