"""Ships what trials report to MLflow, outside the trainers."""
