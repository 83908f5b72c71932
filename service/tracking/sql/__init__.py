"""MLflow's database, where its client opens it itself, without a server."""
