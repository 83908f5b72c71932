"""From the first update to the last: updates, checkpoints, the files of a trial, and the memory that a stack needs."""
