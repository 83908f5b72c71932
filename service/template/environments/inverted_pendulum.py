"""Inverted pendulum: balance a pole on a cart; O = 4, A = 1, an episode ends when the pole has fallen, at most 1000 steps.

With this file, scores on its data are normalized. An environment of your own can be registered in its file, too: define the class, and end
with `gymnasium.register("Mine-v0", entry_point=f"{__name__}:Mine", max_episode_steps=1000)`. A script in this project records data after
`import environments.mine`."""

IDS = ("InvertedPendulum-v5",)

# A reward of 1 in each step. Measured over 200 episodes of uniformly random actions; the best that there is.
SOURCE = "random actions, 200 episodes, and the longest episode"
RANDOM_RETURN = 5.5
EXPERT_RETURN = 1000.0

OBSERVATION_NAMES = ("position", "angle", "velocity", "angular velocity")
