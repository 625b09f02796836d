"""Weights of other frameworks in, models for other runtimes out."""
