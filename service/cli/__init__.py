"""The command line. A command is a file of `sweeps/`, `trials/` or `machine/`, found by its name."""
