"""Paired benchmarks: each figure of ours beside its floor, measured in turn in one run. ``make bench``."""
