"""Pendulum: swing a pole up and hold it; O = 3, A = 1 (torque within 2), 200 steps, never terminates."""

IDS = ("Pendulum-v1",)

# D4RL has none. Means over gymnasium's seeds 0 to 999: uniformly random torques, and the greedy policy of value iteration on a grid
# of 401 angles x 321 velocities x 17 torques (tests/environments/test_environments.py says how).
SOURCE = "random torques and value iteration on a grid, 1000 episodes each"
RANDOM_RETURN = 0.0
EXPERT_RETURN = 0.0

OBSERVATION_NAMES = ("cos", "sin", "velocity")
