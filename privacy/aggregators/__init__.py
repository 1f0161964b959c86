"""Sums under two aggregators that do not collude: the leader has masked words, the helper the seeds of their masks."""
