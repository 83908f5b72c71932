"""Questions about a sweep or a machine: status, logs, stop, doctor."""
