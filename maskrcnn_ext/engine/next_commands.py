"""The commands that follow the training command: after a training, an evaluation, a search of the rate, or a printed config."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.data.formats.text_files import read_json
from maskrcnn_ext.engine.launching import read_rank_info


def next_commands(args: argparse.Namespace) -> list[list[str]]:
    """Returns the commands to print, each the arguments of ``maskrcnn-ext``; none if another process of the run prints them.

    Args:
        args: parsed by :func:`maskrcnn_ext.engine.main.parse_args`, of a run that has succeeded.
    """
    info = read_rank_info(os.environ)
    if args.machine_rank or (info is not None and info.rank):
        return []
    num_gpus = args.num_gpus if info is None else info.local_world_size
    if args.print_config:
        return [_train_net(args, args.opts, num_gpus)]
    settings = load_config(args.config_file, args.opts).train
    out = str(settings.output_dir)
    if args.eval_only:
        return [["report", out], ["compare", out, "OTHER_RUN"]]
    if settings.lr_finder.enabled:
        file = Path(out) / "lr_finder.json"
        rate = read_json(file)["suggestion"] if file.is_file() else None
        kept = [override for override in args.opts if not override.startswith("train.lr_finder.")]
        changes = ["train.lr_finder.enabled=false", *([] if rate is None else [f"optimizer.lr={rate}"])]
        return [_train_net(args, [*kept, *changes], num_gpus)]
    return [["report", out], ["predict", out, "IMAGES", "-o", "predictions"]]


def gpu_flags(num_gpus: int) -> list[str]:
    """Returns the flags of the training command for a number of GPUs; none for one, its default.

    Example:
        >>> gpu_flags(0), gpu_flags(1)
        (['--num-gpus', '0'], [])
    """
    return [] if num_gpus == 1 else ["--num-gpus", str(num_gpus)]


def _train_net(args: argparse.Namespace, overrides: Sequence[str], num_gpus: int) -> list[str]:
    """Returns the training command with other overrides, on the same GPUs and machines."""
    flags = gpu_flags(num_gpus)
    if args.num_machines > 1:
        flags += ["--num-machines", str(args.num_machines), "--dist-url", args.dist_url]
    flags += [flag for flag, given in (("--resume", args.resume), ("--eval-only", args.eval_only)) if given]
    return ["train-net", "--config-file", args.config_file, *flags, *overrides]
