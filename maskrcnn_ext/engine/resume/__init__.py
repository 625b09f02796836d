"""Exact resumption: data and random numbers continue where a checkpoint was written."""
