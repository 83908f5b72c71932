"""Where it runs: plan, manifest, Ray, spool, MLflow, results."""
