"""InvertedDoublePendulum: balance two poles on a cart; O = 9 (v4: 11), A = 1, terminates on a fall.

No reference returns: D4RL has none for it. Where a dataset's metadata has them, as ref_min_score and ref_max_score, they are used."""

IDS = ("InvertedDoublePendulum-v5", "InvertedDoublePendulum-v4")
TIME_LIMIT = 1000
