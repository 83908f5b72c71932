"""FrankaKitchen of gymnasium-robotics: an arm does up to seven tasks in a kitchen; Dict observations, A = 9.

No reference returns: the largest return is the number of tasks, which each dataset sets by `tasks_to_complete` (D4RL: 0 and 4)."""

EXTRA = "robotics"
IDS = ("gymnasium_robotics:FrankaKitchen-v1",)
