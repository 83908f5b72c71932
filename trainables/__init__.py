"""The science: prune a network from a fixed dataset, then train it offline. Never imports ray or mlflow."""
