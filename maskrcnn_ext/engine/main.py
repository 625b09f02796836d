"""The command line of training: Detectron2's own flags and overrides, with the shipped configs at hand by name."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.zoo import config_path

if TYPE_CHECKING:
    from omegaconf import DictConfig


def find_config(config_file: str) -> str:
    """Returns the path of a config that is given as a file or as the name of a shipped one, such as ``domains/nuclei.py``.

    Raises:
        InputError: it is neither.
    """
    return config_file if Path(config_file).is_file() else str(config_path(config_file))


def load_config(config_file: str, overrides: list[str]) -> DictConfig:
    """Loads a LazyConfig and applies overrides.

    Args:
        config_file: as for :func:`find_config`.
        overrides: ``key=value`` strings.

    Raises:
        InputError: there is no such config, or an override cannot be parsed or applied.
    """
    from detectron2.config import LazyConfig

    cfg = LazyConfig.load(find_config(config_file))
    for override in overrides:
        try:
            cfg = LazyConfig.apply_overrides(cfg, [override])
        except Exception as error:  # hydra and omegaconf share no base class
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"cannot apply the override {override!r}: {reason}") from error
    return cfg


def run_process(args: argparse.Namespace) -> None:
    """Loads the config and runs one of the launched processes: a config does not survive being sent to another one."""
    from maskrcnn_ext.engine.trainer import run
    from maskrcnn_ext.env import setup_environment

    setup_environment()
    run(args, load_config(args.config_file, args.opts))


def main(argv: list[str] | None = None) -> int:
    """Trains or evaluates; returns the exit status: 0, or 2 after a mistake in the input, which is printed in one line."""
    from detectron2.engine import default_argument_parser, launch

    args = default_argument_parser().parse_args(argv)
    try:
        # Detectron2's set-up reads the file again, to log it.
        args.config_file = find_config(args.config_file)
        launch(
            run_process,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
