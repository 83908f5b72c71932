"""FrankaKitchen of gymnasium-robotics: an arm does up to seven tasks in a kitchen; Dict observations, A = 9.

No reference returns: D4RL's (0 and 4) count each task once, and in the hub's datasets a completed task goes on to pay in each time step.
The success rate is D4RL's score: the share of the dataset's tasks that an episode has completed."""

EXTRA = "robotics"
IDS = ("gymnasium_robotics:FrankaKitchen-v1",)
