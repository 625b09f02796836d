"""Predicting many images or videos: batches, a journal to resume from, workers on Ray."""
