"""Reacher: bring the tip of a two-link arm to a target; O = 10 (v4: 11), A = 2, 50 steps, never terminates.

No reference returns: D4RL has none for it. Where a dataset's metadata has them, as ref_min_score and ref_max_score, they are used."""

IDS = ("Reacher-v5", "Reacher-v4")
TIME_LIMIT = 50
