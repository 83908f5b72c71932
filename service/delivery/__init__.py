"""Finished trials and their policies, for use elsewhere: export, rollout, registry, archives."""
