"""Shipped tasks: imaging from raw frames to catalogues. What they compute with is in `imaging`."""
