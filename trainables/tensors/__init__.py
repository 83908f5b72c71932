"""Tensors of K members: networks, optimizers, random streams, masks, and recorded updates."""
