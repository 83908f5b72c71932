"""The sweeps behind docs/results.md, docs/settings.md and docs/methods.md."""
