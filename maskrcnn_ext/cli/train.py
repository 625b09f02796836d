"""``maskrcnn-ext train``: from labelled images to a trained and judged model: plans, trains, evaluates and reports."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.cli.configure import add_data_arguments, command_line, write_plan
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.report.pictures import EvaluatedRun
    from maskrcnn_ext.report.run import Run

_EPILOG = """examples:
  %(prog)s photos/                                     a folder or file of any known format
  %(prog)s coco:train.json@images --val coco:val.json@images -o output/apples
  %(prog)s photos/ train.time=60 optimizer.lr=1e-4     any key of the config wins over the plan

The same command continues a run that was stopped. exit status: 0 success; 2 a mistake in the input, reported in one line; 75 stopped
after writing a checkpoint; 130 stopped by a second Ctrl-C.
"""


def main(argv: list[str]) -> int:
    """Runs the command, which parses its own arguments because flags and overrides may be mixed."""
    return run(build_parser().parse_intermixed_args(argv))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="maskrcnn-ext train",
        description="Plans a training from your data and this machine, trains, evaluates, and writes a report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="folder of the run (default: output/ and the name of the data)"
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="GPUs to train on (default: %(default)s); without one, the CPU",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="train N models, each validated on another part of the data, and judge all data",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides of the plan, such as train.epochs=50")
    return parser


def run(args: argparse.Namespace) -> int:
    """Plans unless the folder has a plan, trains unless the training is finished, and prints the judgement."""
    for option in args.opts:
        if "=" not in option:
            raise InputError(f"{option}: expected one data set, and KEY=VALUE for each override")
    if args.folds is not None and (args.folds < 2 or args.val):
        raise InputError(f"--folds {args.folds}: expected 2 or more, without --val")
    from maskrcnn_ext.data.registry.read_once import read_data_sets_once

    out: Path = args.output or Path("output") / _folder_name(args.data)
    _check_folder(out)
    with read_data_sets_once():
        return _train_once(out, args) if args.folds is None else _train_folds(out, args)


def _check_folder(out: Path) -> None:
    """Raises InputError if a folder cannot be created or written to; creates nothing, because the data may be wrong."""
    places = (out.absolute(), *out.absolute().parents)
    place = next(folder for folder in places if os.path.exists(folder))  # noqa: PTH110, no error if a parent cannot be read
    if not place.is_dir() or not os.access(place, os.W_OK):
        fault = "is read-only" if place.is_dir() else "is a file"
        raise InputError(f"{out}: cannot be created or written to, {place} {fault}: choose another folder with -o")


def _train_once(out: Path, args: argparse.Namespace) -> int:
    from maskrcnn_ext.config.plan.sources import prepare_data

    config = out / "config.py"
    if _has_plan(config, args):
        print(f"continuing with the plan in {config}")
    else:
        write_plan(args, prepare_data(args.data, args.val, config.with_suffix("")), config, "train")
    status = _train(config, args)
    if status == 0:
        _conclude(out, *_judge(out))
    return status


def _train_folds(out: Path, args: argparse.Namespace) -> int:
    """Trains the folds in turn, and judges the predictions of each on its own part together: those are out of fold."""
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.config.plan.sources import prepare_folds
    from maskrcnn_ext.report.run import RESULTS_FILE

    configs = [out / f"fold_{number}" / "config.py" for number in range(1, args.folds + 1)]
    name, parts = prepare_folds(args.data, args.folds, [config.with_suffix("") for config in configs])
    values: list[float] = []
    predictions = []
    for config, data in zip(configs, parts, strict=True):
        print(f"\n{config.parent.name} of {args.folds}")
        if not _has_plan(config, args):
            write_plan(args, data, config, "train")
        status = _train(config, args)
        if status:
            return status
        run, evaluated, note = _judge(config.parent)
        if evaluated is None:
            raise InputError(f"{config.parent}: {note}")
        values.append(evaluated.summary["tasks"][evaluated.main_task]["AP"] or 0.0)
        predictions += json.loads(run.results_file.read_text(encoding="utf-8"))
    write_atomic(out / RESULTS_FILE, json.dumps(predictions))
    loader: dict[str, Any] = {"test": {"dataset": {"names": name}}}
    if run.keypoint_sigmas:
        loader["evaluator"] = {"kpt_oks_sigmas": run.keypoint_sigmas}
    write_atomic(out / "config.yaml", json.dumps({"dataloader": loader}) + "\n")
    print(
        f"\nAP of the folds: {', '.join(f'{value:.1f}' for value in values)}; mean {statistics.mean(values):.1f}, "
        f"standard deviation {statistics.stdev(values):.1f}"
    )
    _conclude(out, *_judge(out), weights=configs[0].parent)
    return 0


def _has_plan(config: Path, args: argparse.Namespace) -> bool:
    """Returns whether the config of the run exists.

    Raises:
        InputError: it is a plan for other data.
    """
    if not config.exists():
        return False
    from maskrcnn_ext.config.plan.config_text import docstring_text

    command, text = f"`{docstring_text(command_line(args, 'train'))}`", config.read_text(encoding="utf-8")
    if "".join(command.split()) not in "".join(text.split()):  # the command may be wrapped anywhere
        raise InputError(f"{config} is a plan for other data: choose another folder with -o, or delete it")
    return True


def _folder_name(data: str) -> str:
    """Returns a name for the folder of a run: that of the file or folder of the data, or the registered name."""
    name = Path(re.split(r"[@|]", data.partition(":")[2] or data)[0])
    return re.sub(r"[^\w.-]+", "_", name.stem if name.suffix else name.name).strip("._") or "run"


def _is_finished(out: Path) -> bool:
    manifest = out / "manifest.json"
    return manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")).get("status") == "finished"


def _train(config: Path, args: argparse.Namespace) -> int:
    """Trains unless the training is finished; returns the exit status."""
    from maskrcnn_ext.engine.main import train

    out = config.parent
    if _is_finished(out) and not args.opts:
        return 0
    if args.opts:
        print(f"your overrides, which win over the plan: {shlex.join(args.opts)}")
    print(f"training; everything else is in {out / 'log.txt'}", flush=True)
    keys = [
        f"train.output_dir={out}",
        "train.progress=page",
        "train.best.evaluate=true",
        *_counts(config, args.opts),
        *args.opts,
    ]
    command = ["--config-file", str(config), "--num-gpus", str(args.num_gpus), "--resume", *keys]
    return train(command, prog="maskrcnn-ext train")


def _counts(config: Path, overrides: list[str]) -> list[str]:
    """Returns overrides that give a plan as many evaluations as before if its ``train.max_iter`` is overridden."""
    given = dict(override.split("=", 1) for override in overrides)
    length = given.get("train.max_iter", "")
    if not length.isdecimal() or int(length) == 0:
        return []  # no other length, or a mistake that the training reports
    from omegaconf import OmegaConf

    from maskrcnn_ext.config.file import read_config_file
    from maskrcnn_ext.engine.run_length import COUNTS, set_length

    cfg = read_config_file(str(config))
    set_length(cfg, int(length))
    counts = {key: OmegaConf.select(cfg, key) for key in COUNTS}
    return [f"{key}={count}" for key, count in counts.items() if count and key not in given]


def _judge(out: Path) -> tuple[Run, EvaluatedRun | None, str]:
    from maskrcnn_ext.cli.report import evaluate_with_interval
    from maskrcnn_ext.report.run import read_run

    run = read_run(out)
    return run, *evaluate_with_interval(run, 0.5)


def _conclude(out: Path, run: Run, evaluated: EvaluatedRun | None, note: str, *, weights: Path | None = None) -> None:
    """Writes the report, and prints the judgement, the paths and the next commands."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.report.judgement import sum_up
    from maskrcnn_ext.report.page import write_report

    page = write_report(run, evaluated, out / "report.html", title=out.resolve().name, note=note)
    print()
    for sentence in sum_up(run, evaluated) if evaluated else [note]:
        print(sentence)
    best = out / "model_best.pth"
    paths = {"weights": best if best.exists() else out / "model_final.pth"} if weights is None else {}
    print()
    for name, path in {"plan": (weights or out) / "config.py", **paths, "report": page}.items():
        print(f"{name:8} {path}")
    model = weights or out
    print_next(
        ["predict", str(out), "IMAGES", "-o", "predictions"],
        ["export", str(model), "--to", "onnx", "-o", f"{out.name}.onnx"],
    )
