"""Humanoid: walk forward on two legs; O = 348 (v4: 376), A = 17 (torque within 0.4), terminates on a fall.

No reference returns: D4RL has none for it. Where a dataset's metadata has them, as ref_min_score and ref_max_score, they are used."""

IDS = ("Humanoid-v5", "Humanoid-v4")
TIME_LIMIT = 1000
