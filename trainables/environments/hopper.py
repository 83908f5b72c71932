"""Hopper: hop forward on one leg; O = 11, A = 3, terminates on a fall."""

IDS = ("Hopper-v5", "Hopper-v4")

# D4RL, d4rl/infos.py: REF_MIN_SCORE and REF_MAX_SCORE of hopper-*-v2 (returns of a random and of a SAC expert policy).
RANDOM_RETURN = -20.272305
EXPERT_RETURN = 3234.3

# gymnasium's order, by the names of the model's joints: all positions but the first, then all velocities.
JOINTS = ("rootx", "rootz", "rooty", "thigh", "leg", "foot")
OBSERVATION_NAMES = (*JOINTS[1:], *(f"{joint}.velocity" for joint in JOINTS))
