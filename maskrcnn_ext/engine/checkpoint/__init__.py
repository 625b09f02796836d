"""Checkpoints: files that are written whole, resuming from the newest good one, and a report of the loaded weights."""
