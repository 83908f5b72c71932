"""Pendulum: swing a pole up and hold it; O = 3, A = 1 (torque within 2), 200 steps, never terminates."""

IDS = ("Pendulum-v1",)
TIME_LIMIT = 200

# D4RL has none. Measured here from the starts of gymnasium's seeds 0 to 999: uniformly random torques (-1224.2, standard error 9.1), and
# the greedy policy of value iteration (-138.0 +- 2.4; a grid of 121 angles x 101 velocities x 7 torques, discount 0.995).
SOURCE = "random torques and value iteration, 1000 starts each"
RANDOM_RETURN = -1224.2
EXPERT_RETURN = -138.0

OBSERVATION_NAMES = ("cos", "sin", "velocity")
