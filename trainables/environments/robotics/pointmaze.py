"""PointMaze of gymnasium-robotics: push a ball to a goal in a maze; Dict observations, O = 8 when flattened, A = 2.

No reference returns: D4RL's for maze2d (23.85 and 161.86 for umaze, say) are of an environment with other rewards and time limits, and the
hub's datasets carry their own in their metadata. The success rate is the measure."""

EXTRA = "robotics"
IDS = tuple(
    f"gymnasium_robotics:PointMaze_{maze}{dense}-v3"
    for maze in (
        *("Open", "UMaze", "Medium", "Large"),
        *(f"{maze}_Diverse_{kind}" for maze in ("Open", "Medium", "Large") for kind in ("G", "GR")),
    )
    for dense in ("", "Dense")
)
