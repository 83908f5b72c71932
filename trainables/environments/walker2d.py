"""Walker2d: walk forward on two planar legs; O = 17, A = 6, terminates on a fall."""

from trainables.environments import Runner

IDS = ("Walker2d-v5", "Walker2d-v4")
TIME_LIMIT = 1000

# D4RL, d4rl/infos.py: REF_MIN_SCORE and REF_MAX_SCORE of walker2d-*-v2 (returns of a random and of a SAC expert policy).
RANDOM_RETURN = 1.629008
EXPERT_RETURN = 4592.3

# gymnasium's order, by the names of the model's joints: all positions but the first, then all velocities.
JOINTS = ("rootx", "rootz", "rooty", "thigh", "leg", "foot", "thigh_left", "leg_left", "foot_left")
OBSERVATION_NAMES = (*JOINTS[1:], *(f"{joint}.velocity" for joint in JOINTS))

# gymnasium, walker2d_v5.py
RUNNER = Runner(control_cost=1e-3, healthy_reward=1.0, terminates=True, height=(0.8, 2.0), angle=(-1.0, 1.0), velocity_limit=10.0)
