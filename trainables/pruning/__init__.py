"""From saliencies to masks: ranking, pruning before and during training, and statistics of masks."""
