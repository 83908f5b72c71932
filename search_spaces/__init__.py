"""What to try: one file is one sweep, found by its name. No torch, no ray: planning is instant."""
