"""Tunes a config: trainings with other values of its keys, each a trial of an optuna study."""
