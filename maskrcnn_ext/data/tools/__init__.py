"""Splitting, measuring, drawing and generating data sets."""
