"""``maskrcnn-ext train-net``: trains or evaluates a config. It runs the same code as ``scripts/train_net.py``."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(argv: list[str]) -> int:
    """Runs the training command, which parses its own arguments because flags and overrides may be mixed."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.engine.main import main as train
    from maskrcnn_ext.engine.main import parse_args

    prog = "maskrcnn-ext train-net"
    status = train(argv, prog=prog)
    if status == 0:
        print_next(*_next_commands(parse_args(argv, prog)))
    return status


def _next_commands(args: argparse.Namespace) -> list[list[str]]:
    from maskrcnn_ext.config.zoo import load_config
    from maskrcnn_ext.data.formats.reading import read_json

    train = ["train-net", "--config-file", args.config_file, *args.opts]
    if args.print_config:
        return [train]
    settings = load_config(args.config_file, args.opts).train
    out = str(settings.output_dir)
    if settings.lr_finder.enabled:
        file = Path(out) / "lr_finder.json"
        rate = read_json(file)["suggestion"] if file.is_file() else None
        kept = [text for text in train if not text.startswith("train.lr_finder.")]
        return [[*kept, "train.lr_finder.enabled=false", *([] if rate is None else [f"optimizer.lr={rate}"])]]
    if args.eval_only:
        return [["report", out], ["compare", out, "OTHER_RUN"]]
    return [["report", out], ["predict", out, "IMAGES", "-o", "predictions"]]
