"""AntMaze of gymnasium-robotics: walk on four legs to a goal in a maze; Dict observations, A = 8.

No reference returns: D4RL's (0 and 1) are of an episode that ends at the goal; here it goes on, and each time step there counts. The
success rate is the measure, as in the papers."""

EXTRA = "robotics"
IDS = tuple(
    f"gymnasium_robotics:AntMaze_{maze}{dense}-v{version}"
    for version in (5, 4, 3)
    for maze in (
        *("Open", "UMaze", "Medium", "Large"),
        *(f"{maze}_Diverse_{kind}" for maze in ("Open", "Medium", "Large") for kind in ("G", "GR")),
    )
    for dense in ("", "Dense")
)
