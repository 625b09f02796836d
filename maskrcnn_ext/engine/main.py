"""The training command: parses Detectron2's flags and overrides, checks them, and trains or evaluates."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from maskrcnn_ext.common.next_command import print_next
from maskrcnn_ext.config.zoo import find_config, load_config
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_EPILOG = """examples:
  train:              %(prog)s --config-file domains/nuclei.py train.output_dir=output/nuclei
  resume:             %(prog)s --config-file domains/nuclei.py train.output_dir=output/nuclei --resume
  evaluate:           %(prog)s --config-file domains/nuclei.py --eval-only train.init_checkpoint=output/nuclei/model_final.pth
  without a GPU:      %(prog)s --config-file domains/nuclei.py --num-gpus 0
  two machines:       %(prog)s --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST0:29500 ...   (and rank 1 on the other)
  torchrun:           torchrun --nproc-per-node 8 -m maskrcnn_ext train-net --config-file ...
  SLURM:              srun --ntasks-per-node 8 python -m maskrcnn_ext train-net --config-file ...

exit status: 0 success; 2 a mistake in the input, reported in one line; 75 stopped by Ctrl-C, SIGTERM or SIGUSR1 after writing a
checkpoint: run the same command with --resume; 130 stopped by a second Ctrl-C, or by one before training.
"""


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of the training command. Its help names the command `prog`, by default the running script."""
    parser = argparse.ArgumentParser(
        prog=prog,
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


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Parses the command line, in which flags and overrides may be mixed.

    Example:
        >>> parse_args(["train.max_iter=1", "--config-file", "domains/shapes.py"]).opts
        ['train.max_iter=1']
    """
    return build_parser(prog).parse_intermixed_args(argv)


def check_batch_size(cfg: DictConfig, processes: int) -> None:
    """Raises an InputError if the images of an iteration cannot be divided among the processes."""
    images = cfg.dataloader.train.get("total_batch_size", 0)
    if images % processes:
        raise InputError(
            f"dataloader.train.total_batch_size={images} cannot be divided among {processes} processes: set a multiple of {processes}, or "
            "another --num-gpus"
        )


def run_process(args: argparse.Namespace) -> int:
    """Loads the config and runs one process of the training. Each process loads it, because a config cannot be pickled."""
    from detectron2.utils import comm
    from omegaconf.errors import ConfigAttributeError

    from maskrcnn_ext.data.registry.read_once import read_data_sets_once
    from maskrcnn_ext.engine.trainer import run
    from maskrcnn_ext.env import setup_environment

    setup_environment()
    try:
        cfg = load_config(args.config_file, args.opts)
        if not args.eval_only:
            check_batch_size(cfg, comm.get_world_size())
        with read_data_sets_once():
            return run(args, cfg)
    except ConfigAttributeError as error:  # a user's own config lacks the key, or an override deleted it
        raise InputError(f"the config has no {error.full_key}, which training reads") from error


def main(argv: list[str] | None = None, *, prog: str | None = None) -> int:
    """Trains or evaluates as :func:`train`, and prints the commands that follow if that succeeds."""
    status = train(argv, prog=prog)
    if status == 0:
        from maskrcnn_ext.engine.next_commands import next_commands

        print_next(*next_commands(parse_args(argv, prog)))
    return status


def train(argv: list[str] | None = None, *, prog: str | None = None) -> int:
    """Trains or evaluates. A mistake in the input is printed in one line.

    Args:
        argv: the command line; that of the process by default.
        prog: the name of the command in its help; the running script by default.

    Returns:
        The exit status, as listed by ``--help``.
    """
    args = parse_args(argv, prog)
    try:
        # Detectron2's set-up reads the file again to log it, so the path must exist.
        args.config_file = find_config(args.config_file)
        if args.print_config:
            from maskrcnn_ext.config.provenance import describe_config

            print(describe_config(args.config_file, args.opts))
            return 0
        # Imported here, as it imports torch: --help takes a tenth of a second.
        from maskrcnn_ext.engine.launching import launch, starts_processes

        if starts_processes(args) and not args.eval_only:  # a mistake is reported before each of them has started
            check_batch_size(load_config(args.config_file, args.opts), args.num_machines * args.num_gpus)

        return launch(run_process, args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
