"""Hooks of the training loop: evaluation, checkpoints, averaging, pictures, progress and writers."""
