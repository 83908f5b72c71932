"""MLflow: runs, the shipper that fills them, and the check that nothing is missing."""
