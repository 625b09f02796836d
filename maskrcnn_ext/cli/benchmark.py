"""``maskrcnn-ext benchmark``: measures the package against Detectron2 and every installed peer."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.benchmark.tables import Table

# Part -> its description in `--help`. "all" runs most of them, in this order.
PARTS = {
    "poolers": "RoIAlign on a feature pyramid, forward and backward",
    "masks": "converting mask probabilities to RLEs of large images",
    "inference": "images to boxes and masks, in every installed runtime",
    "backbones": "images to boxes and masks on the backbones of timm, eager and optimized",
    "training": "a training step: forward, backward and optimizer",
    "training_memory": "the number of images that fit into a GPU, with and without checkpointing and bf16",
    "evaluation": "COCO's AP of many detections",
    "loading": "training images per second, of the loader and of the model",
    "startup": "the time from the start of Python to the second prediction",
    "data": "reading a large COCO file into Detectron2's dicts",
    "growth": "time and memory of a prediction by image size, objects, classes and batch size",
    "roofline": "the parts of a prediction against the peak FLOPS and bandwidth of the machine",
    "serve": "a server under load: images per second and time of an answer by the number of clients",
    "export": "an exported model in every runtime: size, speed, AP",
}
# Parts that need a model of the user, an extra, or many minutes.
_BY_NAME_ONLY = ("export", "serve", "training_memory", "backbones")
# The use of the measurements.
_NEXT = {
    "all": ["predict", "RUN", "IMAGES", "--optimize", "-o", "predictions"],
    "training": ["train", "DATA"],
    "training_memory": ["train", "DATA"],
    "loading": ["train", "DATA"],
    "data": ["check-data", "DATA"],
    "evaluation": ["evaluate", "RESULTS.json", "TRUTH"],
    "export": ["export", "RUN", "--to", "onnx", "-o", "FILE.onnx"],
    "serve": ["serve", "RUN"],
}
# Peers, in addition to the packages that every manifest lists.
_PEERS = ("onnxruntime", "openvino", "opencv-python-headless", "opencv-python", "hotcoco", "faster-coco-eval")

_KILLED = "one of its processes was killed, possibly because memory ran out"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, text in PARTS.items():
        part = parts.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _part(name).add_arguments(part)
        _add_common(part)
    _add_common(parts.add_parser("all", help=f"every part but {', '.join(_BY_NAME_ONLY)}, each in a separate process"))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, help="threads of every library (default: the number of cores)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each candidate (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="folder for results.json, results.md and results.png")


def run(args: argparse.Namespace) -> int:
    """Prints each table as soon as it is measured, and writes all tables."""
    from maskrcnn_ext.benchmark.measuring import in_new_process
    from maskrcnn_ext.common.next_command import print_next

    if args.repeats < 1 or (args.threads is not None and args.threads < 1):
        raise InputError("--threads and --repeats: expected 1 or more")
    if args.part != "all":
        try:
            _run_part(args.part, args)
        except BrokenProcessPool:
            raise InputError(_KILLED) from None
        print_next(_NEXT.get(args.part, _NEXT["all"]))
        return 0
    print(f"{_machine_line(args)}\n", flush=True)
    tables, failed = [], []
    for name in PARTS:
        if name in _BY_NAME_ONLY:
            continue
        print(f"## {PARTS[name]}\n", flush=True)
        try:
            tables += in_new_process(_run_part, name, _defaults(name, args))
        except (InputError, ImportError, BrokenProcessPool) as error:
            print(f"{name}: error: {_KILLED if isinstance(error, BrokenProcessPool) else error}", file=sys.stderr)
            failed.append(name)
        _write(tables, args)  # a later part may fail
    if failed:
        raise InputError(f"not measured: {', '.join(failed)}")
    print_next(_NEXT["all"])
    return 0


def _machine_line(args: argparse.Namespace) -> str:
    """Returns the processor, its instructions, cores, threads, memory and GPUs in a line."""
    from maskrcnn_ext.engine.machine import describe_machine

    machine = describe_machine()
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"])
    return (
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), {machine['cores']} cores, {args.threads or machine['threads']} threads, "
        f"{(machine['memory_bytes'] or 0) / 2**30:.0f} GB; {gpus or 'no GPU'}"
    )


def _run_part(name: str, args: argparse.Namespace) -> list[Table]:
    """Runs one part and prints each table as soon as it is measured."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    tables = []
    for table in _part(name).run(args):
        if getattr(args, "clock", "wall") == "cpu":
            table = replace(table, note=f"{table.note} Times are CPU seconds of all threads.".strip())
        print(f"{table.as_markdown()}\n", flush=True)
        tables.append(table)
        if args.part == name:
            _write(tables, args)  # the rest may fail
    return tables


def _defaults(name: str, args: argparse.Namespace) -> argparse.Namespace:
    """Returns the arguments of a part that runs as one of "all"."""
    parser = argparse.ArgumentParser()
    _part(name).add_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), **vars(args)})


def _write(tables: list[Table], args: argparse.Namespace) -> None:
    from maskrcnn_ext.benchmark.tables import draw
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.engine.machine import describe_machine, package_versions

    if args.output is None:
        return
    results: dict[str, Any] = {
        "machine": {**describe_machine(), **({"threads": args.threads} if args.threads else {})},
        "versions": package_versions(*_PEERS),
        "tables": [table.as_dict() for table in tables],
    }
    write_atomic(args.output / "results.json", json.dumps(results, indent=1))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    head = [_machine_line(args), versions]
    text = "\n\n".join([*head, *(table.as_markdown() for table in tables)])
    write_atomic(args.output / "results.md", f"{text}\n")
    draw(tables, args.output / "results.png")


def _part(name: str) -> Any:
    return import_module(f"maskrcnn_ext.benchmark.{name}")
