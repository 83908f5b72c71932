"""Environments of gymnasium-robotics, which the extra `robotics` brings."""
