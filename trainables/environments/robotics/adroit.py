"""Adroit of gymnasium-robotics: a hand of 24 joints opens a door, hammers a nail, turns a pen or moves a ball; O = 39 to 46, A = 24 to 30.

No reference returns: D4RL's are of its v0 and v1 environments, and gymnasium-robotics 1.2.1 changed the rewards of three of the four under
the same id. The hub's datasets carry their own in their metadata."""

EXTRA = "robotics"
IDS = tuple(
    f"gymnasium_robotics:AdroitHand{task}{sparse}-v1" for task in ("Door", "Hammer", "Pen", "Relocate") for sparse in ("", "Sparse")
)
