"""Commands about a running sweep or this machine: status, logs, stop, doctor."""
