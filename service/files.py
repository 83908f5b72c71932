"""Writing files as the core does."""

from trainables.files import append, sync_folder, write

__all__ = ["append", "sync_folder", "write"]
