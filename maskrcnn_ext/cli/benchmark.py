"""``maskrcnn-ext benchmark``: measures the package against Detectron2 and against every peer that is installed."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.benchmark.tables import Table

# Part -> what `--help` says of it. "all" runs most of them, in this order.
PARTS = {
    "poolers": "RoIAlign on a pyramid, forward and backward",
    "masks": "mask probabilities to RLEs of large images",
    "inference": "from images to boxes and masks, in every runtime that is installed",
    "training": "a step of training: forward, backward and the optimizer's",
    "training_memory": "how many images fit into a card, with and without checkpointing and bf16",
    "evaluation": "COCO's AP of many detections",
    "loading": "training images a second: the loader's, and the model's that it feeds",
    "startup": "from the start of Python to the second prediction",
    "data": "reading a large COCO file into Detectron2's dicts",
    "growth": "how the time and memory of a prediction grow with the image, its objects, the classes and the batch",
    "roofline": "the parts of a prediction against what the machine can compute and move",
    "export": "a model in every runtime that it is exported for: size, speed, AP",
}
# What needs a model of the user's, or many minutes.
_BY_NAME_ONLY = ("export", "training_memory")
# Peers, beside the packages that every manifest names.
_PEERS = ("onnxruntime", "openvino", "opencv-python-headless", "opencv-python", "faster-coco-eval")

_KILLED = "a process of it was killed, perhaps for want of memory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, text in PARTS.items():
        part = parts.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _part(name).add_arguments(part)
        _add_common(part)
    _add_common(
        parts.add_parser("all", help=f"every part but {' and '.join(_BY_NAME_ONLY)}, each in a process of its own")
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, help="of every library (default: as many as there are cores)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="folder for results.json, results.md and results.png")


def run(args: argparse.Namespace) -> int:
    """Prints a table as soon as it is measured, and writes them all."""
    from maskrcnn_ext.benchmark.measuring import in_new_process

    if args.repeats < 1 or (args.threads or 1) < 1:
        raise InputError("--threads and --repeats: expected 1 or more")
    if args.part != "all":
        try:
            _measured(args.part, args)
        except BrokenProcessPool:
            raise InputError(_KILLED) from None
        return 0
    tables, failed = [], []
    for name in PARTS:
        if name in _BY_NAME_ONLY:
            continue
        print(f"## {PARTS[name]}\n", flush=True)
        try:
            tables += in_new_process(_measured, name, _defaults(name, args))
        except (InputError, ImportError, BrokenProcessPool) as error:
            print(f"{name}: error: {_KILLED if isinstance(error, BrokenProcessPool) else error}", file=sys.stderr)
            failed.append(name)
        _write(tables, args)  # what is there, should a later part fail
    if failed:
        raise InputError(f"not measured: {', '.join(failed)}")
    return 0


def _measured(name: str, args: argparse.Namespace) -> list[Table]:
    """Runs one part, and prints its tables as they come."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    tables = []
    for table in _part(name).run(args):
        print(f"{table.as_markdown()}\n", flush=True)
        tables.append(table)
        if args.part == name:
            _write(tables, args)  # what is there, should the rest fail
    return tables


def _defaults(name: str, args: argparse.Namespace) -> argparse.Namespace:
    """A part's arguments where it is one of all."""
    parser = argparse.ArgumentParser()
    _part(name).add_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), **vars(args)})


def _write(tables: list[Table], args: argparse.Namespace) -> None:
    from maskrcnn_ext.benchmark.tables import draw
    from maskrcnn_ext.engine.machine import describe_machine, package_versions

    if args.output is None:
        return
    args.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "machine": {**describe_machine(), **({"threads": args.threads} if args.threads else {})},
        "versions": package_versions(*_PEERS),
        "tables": [table.as_dict() for table in tables],
    }
    (args.output / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    about = found["machine"]
    head = [
        f"{about['cpu']} ({', '.join(about['instructions'])}), {about['cores']} cores, {about['threads']} threads, "
        f"{(about['memory_bytes'] or 0) / 2**30:.0f} GB; {', '.join(gpu['name'] for gpu in about['gpus']) or 'no GPU'}",
        ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version),
    ]
    text = "\n\n".join([*head, *(table.as_markdown() for table in tables)])
    (args.output / "results.md").write_text(f"{text}\n", encoding="utf-8")
    draw(tables, args.output / "results.png")


def _part(name: str) -> Any:
    return import_module(f"maskrcnn_ext.benchmark.{name}")
