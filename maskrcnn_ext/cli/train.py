"""``maskrcnn-ext train``: from labelled images to a trained and judged model: plans, trains, evaluates and reports."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from maskrcnn_ext.cli.configure import add_data_arguments, command_line, write_plan
from maskrcnn_ext.errors import InputError

_EPILOG = """examples:
  %(prog)s photos/                                     a folder or file of any known format
  %(prog)s coco:train.json@images --val coco:val.json@images -o output/apples
  %(prog)s photos/ train.time=60 optimizer.lr=1e-4     any key of the config wins over the plan

The same command continues a run that was stopped. exit status: 0 success; 2 a mistake in the input, reported in one line; 75 stopped
after writing a checkpoint; 130 stopped by a second Ctrl-C.
"""


def main(argv: list[str]) -> int:
    """Runs the command, which parses its own arguments because flags and overrides may be mixed."""
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
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides of the plan, such as train.epochs=50")
    return run(parser.parse_intermixed_args(argv))


def run(args: argparse.Namespace) -> int:
    """Plans unless the folder has a plan, trains unless the training is finished, and prints the judgement."""
    for option in args.opts:
        if "=" not in option:
            raise InputError(f"{option}: expected one data set, and KEY=VALUE for each override")
    out: Path = args.output or Path("output") / _folder_name(args.data)
    config = out / "config.py"
    if not config.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_plan(args, config, "train")
    elif command_line(args, "train") not in " ".join(config.read_text(encoding="utf-8").split()):
        raise InputError(f"{config} is a plan for other data: choose another folder with -o, or delete it")
    else:
        print(f"continuing with the plan in {config}")
    if args.opts or not _is_finished(out):
        status = _train(config, out, args)
        if status:
            return status
    _conclude(out)
    return 0


def _folder_name(data: str) -> str:
    """Returns a name for the folder of a run: that of the file or folder of the data, or the registered name."""
    name = Path(re.split(r"[@|]", data.partition(":")[2] or data)[0])
    return re.sub(r"[^\w.-]+", "_", name.stem if name.suffix else name.name).strip("._") or "run"


def _is_finished(out: Path) -> bool:
    manifest = out / "manifest.json"
    return manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")).get("status") == "finished"


def _train(config: Path, out: Path, args: argparse.Namespace) -> int:
    from maskrcnn_ext.engine.main import main as train

    print(f"training; everything else is in {out / 'log.txt'}", flush=True)
    keys = [f"train.output_dir={out}", "train.progress=page", "train.best.evaluate=true", *args.opts]
    command = ["--config-file", str(config), "--num-gpus", str(args.num_gpus), "--resume", *keys]
    return train(command, prog="maskrcnn-ext train")


def _conclude(out: Path) -> None:
    """Evaluates the predictions of the run, writes the report, and prints the judgement, the paths and the next commands."""
    from maskrcnn_ext.cli.report import evaluate_with_interval
    from maskrcnn_ext.report.judgement import sum_up
    from maskrcnn_ext.report.page import write_report
    from maskrcnn_ext.report.run import read_run

    run = read_run(out)
    evaluated, note = evaluate_with_interval(run, 0.5)
    page = write_report(run, evaluated, out / "report.html", title=out.resolve().name, note=note)
    print()
    for sentence in sum_up(run, evaluated) if evaluated else [note]:
        print(sentence)
    best = out / "model_best.pth"
    paths = {"plan": out / "config.py", "weights": best if best.exists() else out / "model_final.pth", "report": page}
    print()
    for name, path in paths.items():
        print(f"{name:8} {path}")
    print(
        f"\nNext:\n    maskrcnn-ext predict {out} IMAGES -o predictions\n    maskrcnn-ext export {out} --to onnx -o {out.name}.onnx"
    )
