"""Trained policies and finished trials for use elsewhere: export, rollout, registry, archives."""
