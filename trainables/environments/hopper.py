"""Hopper: hop forward on one leg; O = 11, A = 3, terminates on a fall."""

from math import inf

from trainables.environments import Runner

IDS = ("Hopper-v5", "Hopper-v4")
TIME_LIMIT = 1000

# D4RL, d4rl/infos.py: REF_MIN_SCORE and REF_MAX_SCORE of hopper-*-v2 (returns of a random and of a SAC expert policy).
RANDOM_RETURN = -20.272305
EXPERT_RETURN = 3234.3

# gymnasium's order, by the names of the model's joints: all positions but the first, then all velocities.
JOINTS = ("rootx", "rootz", "rooty", "thigh", "leg", "foot")
OBSERVATION_NAMES = (*JOINTS[1:], *(f"{joint}.velocity" for joint in JOINTS))

# gymnasium, hopper_v5.py
RUNNER = Runner(
    control_cost=1e-3,
    healthy_reward=1.0,
    terminates=True,
    height=(0.7, inf),
    angle=(-0.2, 0.2),
    state=(-100.0, 100.0),
    velocity_limit=10.0,
)
