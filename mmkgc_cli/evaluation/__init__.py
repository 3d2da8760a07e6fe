"""The one ranker, the metrics made from its ranks, and the protocol that locks them."""
