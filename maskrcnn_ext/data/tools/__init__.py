"""Tools that split, measure, draw and generate data sets."""
