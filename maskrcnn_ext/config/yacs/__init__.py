"""Converts yacs configs into LazyConfigs."""
