"""Prediction: images, folders, large images, video."""
