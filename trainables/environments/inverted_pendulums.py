"""InvertedPendulum and InvertedDoublePendulum: balance one pole (O = 4) or two (O = 9, v4: 11) on a cart; A = 1, terminate on a fall.

No reference returns: D4RL has none for them. Where a dataset's metadata has them, as ref_min_score and ref_max_score, they are used."""

IDS = ("InvertedPendulum-v5", "InvertedPendulum-v4", "InvertedDoublePendulum-v5", "InvertedDoublePendulum-v4")
TIME_LIMIT = 1000
