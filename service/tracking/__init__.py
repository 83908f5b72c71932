"""MLflow: the runs of trials, the shipper that populates them, and a check that nothing is missing."""
