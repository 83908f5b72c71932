"""Ant: walk forward on four legs; O = 105 (v4: 27, without contact forces), A = 8, terminates outside a healthy height."""

IDS = ("Ant-v5", "Ant-v4")
TIME_LIMIT = 1000

# D4RL, d4rl/infos.py: REF_MIN_SCORE and REF_MAX_SCORE of ant-*-v2 (returns of a random and of a SAC expert policy).
RANDOM_RETURN = -325.6
EXPERT_RETURN = 3879.7

# gymnasium's order, by the names of the model's joints and bodies: positions but x and y, velocities, then (v5) the contact's torque
# and force on every body but the world. The model leaves the shins nameless.
JOINTS = tuple(f"{joint}_{leg}" for leg in (1, 2, 3, 4) for joint in ("hip", "ankle"))
BODIES = ("torso", *(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("leg", "thigh", "shin")))
OBSERVATION_NAMES = (
    *(f"root.{part}" for part in ("z", "qw", "qx", "qy", "qz")),
    *JOINTS,
    *(f"root.{part}" for part in ("vx", "vy", "vz", "wx", "wy", "wz")),
    *(f"{joint}.velocity" for joint in JOINTS),
    *(f"{body}.{kind}_{axis}" for body in BODIES for kind in ("torque", "force") for axis in "xyz"),
)
