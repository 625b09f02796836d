"""``maskrcnn-ext train-net``: trains or evaluates a config. It runs the same code as ``scripts/train_net.py``."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    """Runs the training command, which parses its own arguments because flags and overrides may be mixed."""
    from maskrcnn_ext.engine.main import main as train

    return train(argv, prog="maskrcnn-ext train-net")
