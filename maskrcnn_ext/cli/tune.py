"""``maskrcnn-ext tune``: trains a config with other values of its keys, and writes the best as a config."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from maskrcnn_ext.engine.tuning.search_space import Dimension, Value
    from maskrcnn_ext.engine.tuning.trials import Trial, Tuning

_EPILOG = """examples:
  %(prog)s output/apples --trials 20                        the run of `maskrcnn-ext train`
  %(prog)s my_config.py train.time=10 -o output/tune        ten minutes a trial instead of a quarter of the config's iterations
  %(prog)s my_config.py optimizer.lr=1e-4                   a key that is set is not varied

The same command continues a tuning that was stopped, and more --trials add to it. exit status: 0 success; 2 a mistake in the input,
reported in one line; 75 stopped; 130 stopped by a second Ctrl-C.
"""
# Keys that set the length of a trial: the best config keeps that of the config.
_LENGTH = ("train.max_iter", "train.epochs", "train.time", "train.clock")


def main(argv: list[str]) -> int:
    """Runs the command, which parses its own arguments because flags and overrides may be mixed."""
    return run(build_parser().parse_intermixed_args(argv))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="maskrcnn-ext tune",
        description="Trains a config with other rates, scales, losses, augmentations and thresholds, and writes the best.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", help="folder of a training run, or a LazyConfig: a file, or the name of a shipped one"
    )
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trainings in all (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder (default: output/ and NAME_tune)")
    parser.add_argument(
        "--metric", help="the metric to maximise (default: train.best.metric, or the AP of masks or boxes)"
    )
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="GPUs to train on; without one, the CPU")
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides of all trials, such as train.time=10")
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the trials, one line each, and writes the best config and the page."""
    for option in args.opts:
        if "=" not in option:
            raise InputError(f"{option}: expected one config, and KEY=VALUE for each override")
    if args.trials < 2:
        raise InputError(f"--trials {args.trials}: expected 2 or more")
    from maskrcnn_ext.common.extras import require
    from maskrcnn_ext.common.lock import lock_folder

    require("optuna", extra="tune", purpose="tuning")
    config = _config_file(args.config)
    from maskrcnn_ext.config.overrides import parse_override
    from maskrcnn_ext.config.zoo import load_config
    from maskrcnn_ext.engine.tuning.search_space import find_dimensions
    from maskrcnn_ext.engine.tuning.trials import StoppedTrialError, Tuning, trial_length

    cfg = load_config(config, args.opts)
    dimensions = find_dimensions(cfg, [parse_override(text).key for text in args.opts])
    if not dimensions:
        raise InputError(f"{args.config}: nothing is left to vary")
    out: Path = args.output or Path("output") / f"{_name(args.config)}_tune"
    with lock_folder(out):
        tuning = Tuning(
            out,
            config,
            dimensions,
            metric=args.metric or _metric(cfg),
            fixed=[*args.opts, *trial_length(cfg, args.opts)],
            num_gpus=args.num_gpus,
            seed=max(0, cfg.train.seed),
        )
        status = 0
        try:
            _show_trials(tuning, args.trials)
        except StoppedTrialError as stopped:
            status = stopped.status
            print(f"stopped; the same command continues trial {len(tuning.trials())}", file=sys.stderr)
        if tuning.best() is not None:
            _conclude(tuning, args, out)
    return status


def _config_file(given: str) -> str:
    """Returns the config's file: that of a run is its plan, or else its config.yaml."""
    from maskrcnn_ext.config.zoo import find_config

    folder = Path(given)
    if not folder.is_dir():
        return str(Path(find_config(given)).resolve())
    found = next((folder / name for name in ("config.py", "config.yaml") if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{given} is not the folder of a run: it has no config.yaml")
    return str(found.resolve())


def _name(given: str) -> str:
    path = Path(given)
    return path.resolve().name if path.is_dir() else path.stem


def _metric(cfg: DictConfig) -> str:
    if cfg.train.best.metric is not None:
        return str(cfg.train.best.metric)
    return "segm/AP" if cfg.model.roi_heads.get("mask_head") is not None else "bbox/AP"


def _show_trials(tuning: Tuning, count: int) -> None:
    """Prints a line for each trial, those of earlier calls first."""
    widths = [max(len(dimension.name), 6, *map(len, dimension.choices)) for dimension in tuning.dimensions]
    names = "  ".join(dimension.name.rjust(width) for dimension, width in zip(tuning.dimensions, widths, strict=True))
    print(f"trial  {tuning.metric:>8}  minutes  {names}")
    unchanged = {dimension.name: dimension.unchanged for dimension in tuning.dimensions}
    for trial in tuning.trials():
        print(_line(trial, tuning.dimensions, widths, unchanged, None))
    before = time.monotonic()
    started, first = before, len(tuning.trials())
    _show_status(first, count, 0.0)
    for done, trial in enumerate(tuning.run(count), start=1):
        now = time.monotonic()
        print(_line(trial, tuning.dimensions, widths, unchanged, (now - before) / 60), flush=True)
        before = now
        _show_status(first + done, count, (now - started) / done * (count - first - done) / 60)


def _show_status(done: int, count: int, minutes: float) -> None:
    """Shows the running trial on a terminal. The next line replaces it."""
    if sys.stdout.isatty() and done < count:
        left = f", about {minutes:.0f} minutes left" if minutes >= 1 else ""
        print(f"training trial {done + 1} of {count}{left}\x1b[K", end="\r", flush=True)


def _line(
    trial: Trial,
    dimensions: list[Dimension],
    widths: list[int],
    unchanged: dict[str, Value],
    minutes: float | None,
) -> str:
    """Returns the line of a trial; a dot means the config's own value."""
    texts = [
        "." if trial.values[dimension.name] == unchanged[dimension.name] else _text(trial.values[dimension.name])
        for dimension in dimensions
    ]
    value = "failed" if trial.value is None else f"{trial.value:.1f}"
    took = "" if minutes is None else f"{minutes:.1f}"
    columns = "  ".join(text.rjust(width) for text, width in zip(texts, widths, strict=True))
    end = "  pruned" if trial.pruned else f"  {trial.failure}" if trial.failure else ""
    return f"{trial.folder.name:>5}  {value:>8}  {took:>7}  {columns}{end}"


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _conclude(tuning: Tuning, args: argparse.Namespace, out: Path) -> None:
    """Writes best.py and the page, and prints the best overrides and the next commands."""
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.text import printable
    from maskrcnn_ext.config.plan.choice import override_value
    from maskrcnn_ext.engine.next_commands import gpu_flags
    from maskrcnn_ext.report.tuning_page import TrialRow, Varied, write_tuning_page

    best, trials = tuning.best(), tuning.trials()
    assert best is not None
    first = next((trial.value for trial in trials if trial.folder.name == "0"), None)
    against = "" if first is None else f", {first:.1f} without a change"
    settings = tuning.settings(best)
    kept = [text for text in args.opts if text.partition("=")[0] not in _LENGTH]
    overrides = [*kept, *(f"{key}={override_value(value)}" for key, value in settings.items())]
    print(f"\nbest: trial {best.folder.name}, {tuning.metric} {best.value:.1f}{against}")
    command = shlex.join(["maskrcnn-ext", "tune", args.config, *args.opts])
    title = f"trial {best.folder.name} of {len(trials)}: {tuning.metric} {best.value:.1f}{against}"
    file = out / "best.py"
    write_atomic(file, best_config(_config_file(args.config), out, overrides, title=title, command=command))
    page = write_tuning_page(
        [Varied(dimension.name, dimension.choices, dimension.log) for dimension in tuning.dimensions],
        [TrialRow(trial.folder.name, trial.values, trial.value, trial.pruned, trial.failure) for trial in trials],
        tuning.importances(),
        out / "report.html",
        metric=tuning.metric,
        title=out.resolve().name,
        best=best.folder.name,
        overrides=overrides,
    )
    print(f"config   {file}\nreport   {page}")
    print(
        f"\nThe same as overrides:\n\n    {printable(shlex.join(overrides)) if overrides else 'none: no change was better'}"
    )
    train = ["train-net", "--config-file", str(file), *gpu_flags(args.num_gpus), f"train.output_dir={out}/best"]
    print_next(train, ["report", str(out / best.folder.relative_to(tuning.out))])


def best_config(config: str, out: Path, overrides: list[str], *, title: str, command: str) -> str:
    """Returns the text of a LazyConfig that loads a config and states its differences.

    Args:
        config: the file of the config.
        out: the folder of the file to write, from which the config is named.
        overrides: ``key=value``.
        title: of the first line.
        command: that found the overrides.
    """
    from maskrcnn_ext.config.plan.config_text import PARTS, docstring_text

    path = os.path.relpath(config, out.resolve())
    return "\n".join(
        [
            f'"""{docstring_text(title)}.',
            "",
            f"Found by `{docstring_text(command)}`.",
            '"""',
            "",
            "from pathlib import Path",
            "",
            "from detectron2.config import LazyConfig",
            "",
            f"_base = LazyConfig.load(str(Path(__file__).resolve().parent / {path!r}))",
            *(f"{part} = _base.{part}" for part in PARTS),
            "",
            *map(_statement, overrides),
            "",
        ]
    )


def _statement(override: str) -> str:
    """Returns an override as a statement of a config.

    Example:
        >>> _statement("dataloader.train.mapper.augmentations.0.max_size=640")
        'dataloader.train.mapper.augmentations[0].max_size = 640'
    """
    from maskrcnn_ext.config.overrides import parse_override

    parsed = parse_override(override)
    first, *parts = parsed.key.split(".")
    place = first + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
    return f"del {place}" if parsed.deletes else f"{place} = {parsed.value!r}"
