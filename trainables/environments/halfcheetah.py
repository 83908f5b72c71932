"""HalfCheetah: run forward with a planar two-legged body; O = 17, A = 6, never terminates."""

from trainables.environments import Runner

IDS = ("HalfCheetah-v5", "HalfCheetah-v4")
TIME_LIMIT = 1000

# D4RL, d4rl/infos.py: REF_MIN_SCORE and REF_MAX_SCORE of halfcheetah-*-v2 (returns of a random and of a SAC expert policy).
RANDOM_RETURN = -280.178953
EXPERT_RETURN = 12135.0

# gymnasium's order, by the names of the model's joints: all positions but the first, then all velocities.
JOINTS = ("rootx", "rootz", "rooty", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
OBSERVATION_NAMES = (*JOINTS[1:], *(f"{joint}.velocity" for joint in JOINTS))

# gymnasium, half_cheetah_v5.py
RUNNER = Runner(control_cost=0.1)
