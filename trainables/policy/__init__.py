"""The trained policy without torch."""
