"""Imports checkpoints of Detectron2 and its model zoo."""
