"""The training command: parses Detectron2's flags and overrides, checks them, and trains or evaluates."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.config.zoo import config_path
from maskrcnn_ext.engine.launching import launch
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_EPILOG = """examples:
  train:              %(prog)s --config-file domains/nuclei.py train.output_dir=output/nuclei
  resume:             %(prog)s --config-file domains/nuclei.py train.output_dir=output/nuclei --resume
  evaluate:           %(prog)s --config-file domains/nuclei.py --eval-only train.init_checkpoint=output/nuclei/model_final.pth
  without a GPU:      %(prog)s --config-file domains/nuclei.py --num-gpus 0
  two machines:       %(prog)s --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST0:29500 ...   (and rank 1 on the other)
  torchrun:           torchrun --nproc-per-node 8 %(prog)s --config-file ...
  SLURM:              srun --ntasks-per-node 8 python %(prog)s --config-file ...

exit status: 0 success; 2 a mistake in the input, reported in one line; 75 stopped by SIGTERM or SIGUSR1 after writing a checkpoint: run
the same command with --resume.
"""


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the training command."""
    parser = argparse.ArgumentParser(
        description="Trains or evaluates a LazyConfig, like Detectron2's tools/lazyconfig_train_net.py.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="a LazyConfig, or the name of a shipped one"
    )
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint in train.output_dir")
    parser.add_argument("--eval-only", action="store_true", help="evaluate train.init_checkpoint")
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="GPUs per machine; without CUDA, the number of processes (0 means one)",
    )
    parser.add_argument("--num-machines", type=int, default=1, metavar="N")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N", help="rank of this machine, from 0")
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="address that machine 0 listens on; a single machine finds a free port by default",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the config with the origin of each value, and exit"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides; +KEY=VALUE adds a key")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line, in which flags and overrides may be mixed.

    Example:
        >>> parse_args(["train.max_iter=1", "--config-file", "domains/shapes.py"]).opts
        ['train.max_iter=1']
    """
    return build_parser().parse_intermixed_args(argv)


def find_config(config_file: str) -> str:
    """Returns the path of a config.

    Args:
        config_file: a file, or the name of a shipped config, such as ``domains/nuclei.py``.

    Raises:
        InputError: it is neither.
    """
    return config_file if Path(config_file).is_file() else str(config_path(config_file))


def load_config(config_file: str, overrides: list[str]) -> DictConfig:
    """Loads a LazyConfig, adds the keys of this trainer with their defaults, and applies overrides.

    Args:
        config_file: as for :func:`find_config`.
        overrides: ``key=value`` strings.

    Raises:
        InputError: the config does not exist; or an override cannot be parsed, names an unknown key or has an invalid value.

    Example:
        >>> load_config("domains/shapes.py", ["train.max_iter=7"]).train.max_iter
        7
    """
    from detectron2.config import LazyConfig

    from maskrcnn_ext.config import overrides as strict
    from maskrcnn_ext.config import settings

    cfg = settings.complete(LazyConfig.load(find_config(config_file)))
    cfg = strict.apply(cfg, overrides)
    settings.check(cfg)
    return cfg


def run_process(args: argparse.Namespace) -> int:
    """Loads the config and runs one process of the training. Each process loads it, because a config cannot be pickled."""
    from omegaconf.errors import ConfigAttributeError

    from maskrcnn_ext.engine.trainer import run
    from maskrcnn_ext.env import setup_environment

    setup_environment()
    try:
        return run(args, load_config(args.config_file, args.opts))
    except ConfigAttributeError as error:  # a user's own config lacks the key, or an override deleted it
        raise InputError(f"the config has no {error.full_key}, which training reads") from error


def main(argv: list[str] | None = None) -> int:
    """Trains or evaluates. A mistake in the input is printed in one line.

    Returns:
        The exit status, as listed by ``--help``.
    """
    args = parse_args(argv)
    try:
        # Detectron2's set-up reads the file again to log it, so the path must exist.
        args.config_file = find_config(args.config_file)
        if args.print_config:
            from maskrcnn_ext.config.provenance import describe

            print(describe(args.config_file, args.opts))
            return 0
        return launch(run_process, args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
