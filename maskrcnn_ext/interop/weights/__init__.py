"""Converts weights of other frameworks: one folder a framework, each with ``convert.py``."""
