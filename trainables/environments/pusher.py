"""Pusher: push a cylinder to its goal with a seven-joint arm; O = 23, A = 7 (torque within 2), 100 steps, never terminates.

No reference returns: D4RL has none for it. Where a dataset's metadata has them, as ref_min_score and ref_max_score, they are used."""

IDS = ("Pusher-v5",)
TIME_LIMIT = 100
