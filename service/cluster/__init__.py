"""Ray: the cluster that trains, and jobs submitted to it."""
