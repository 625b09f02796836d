"""Training from the command line: Detectron2's flags and overrides, checked before anything runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.config.zoo import config_path
from maskrcnn_ext.engine.arguments import parse
from maskrcnn_ext.engine.launching import launch
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def find_config(config_file: str) -> str:
    """Returns the path of a config that is given as a file or as the name of a shipped one, such as ``domains/nuclei.py``.

    Raises:
        InputError: it is neither.
    """
    return config_file if Path(config_file).is_file() else str(config_path(config_file))


def load_config(config_file: str, overrides: list[str]) -> DictConfig:
    """Loads a LazyConfig, completes it with the keys of this trainer, and applies overrides.

    Args:
        config_file: as for :func:`find_config`.
        overrides: ``key=value`` strings.

    Raises:
        InputError: there is no such config, or an override cannot be parsed, names no key or has a value that cannot be.
    """
    from detectron2.config import LazyConfig

    from maskrcnn_ext.config import overrides as strict
    from maskrcnn_ext.config import settings

    cfg = settings.complete(LazyConfig.load(find_config(config_file)))
    cfg = strict.apply(cfg, overrides)
    settings.check(cfg)
    return cfg


def run_process(args: argparse.Namespace) -> int:
    """Loads the config and runs one of the launched processes: a config does not survive being sent to another one."""
    from omegaconf.errors import ConfigAttributeError

    from maskrcnn_ext.engine.trainer import run
    from maskrcnn_ext.env import setup_environment

    setup_environment()
    try:
        return run(args, load_config(args.config_file, args.opts))
    except (
        ConfigAttributeError
    ) as error:  # of a config that somebody else has written, or after an override that deletes
        raise InputError(f"the config has no {error.full_key}, which training reads") from error


def main(argv: list[str] | None = None) -> int:
    """Trains or evaluates; returns the exit status, which ``--help`` lists. A mistake in the input is printed in one line."""
    args = parse(argv)
    try:
        # Detectron2's set-up reads the file again, to log it.
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
