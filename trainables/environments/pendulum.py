"""Pendulum: swing a pole up and hold it; O = 3, A = 1 (torque within 2), 200 steps, never terminates."""

IDS = ("Pendulum-v1",)

# D4RL has no reference returns for it, and none were measured yet: results are returns.

OBSERVATION_NAMES = ("cos", "sin", "velocity")
