"""Measures the time from the start of Python to the second prediction."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.measuring import in_new_process, measure
from maskrcnn_ext.benchmark.tables import Row, Table

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import torch, detectron2.modeling": ["-c", "import torch, detectron2.modeling"],
    "import maskrcnn_ext": ["-c", "import maskrcnn_ext"],
    "maskrcnn-ext --help": ["-m", "maskrcnn_ext", "--help"],
    "maskrcnn_ext.Predictor": ["-c", "import maskrcnn_ext; maskrcnn_ext.Predictor"],
}
STEPS = ("built and loaded", "optimize", "first prediction", "second prediction")
SIDES = ("Detectron2", "maskrcnn_ext")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--config", default=models.R50, help="config of the model (default: %(default)s)")
    parser.add_argument("--size", type=models.size, default=(800, 1216), help="size of the image (default: 800x1216)")


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Measures in new processes: commands as a whole, and the steps of a model after the imports."""
    import torch

    commands = {
        name: partial(subprocess.run, [sys.executable, *command], check=True, capture_output=True)
        for name, command in COMMANDS.items()
    }
    note = "The first start of each is not counted, so files are in the page cache."
    yield Table.of_times("New processes", measure(commands, args.repeats), note)
    with TemporaryDirectory() as folder:
        weights = models.detectron2_weights(Path(folder) / "model.pth", args.config, [models.NO_RESIZE], args.size)
        case = (args.config, str(weights), args.size, torch.get_num_threads())
        rounds = [{side: in_new_process(time_steps, side, *case) for side in SIDES} for _ in range(args.repeats)]
    for step in STEPS:
        rows = [Row(side, [times[side][step] for times in rounds]) for side in SIDES if step in rounds[0][side]]
        yield Table(f"{args.config.removesuffix('.py')}, {args.size[0]} x {args.size[1]} pixels: {step}", rows)


def time_steps(side: str, config: str, weights: str, size: tuple[int, int], threads: int) -> dict[str, float]:
    """Runs the steps of one side in this process and returns the seconds of each."""
    import torch
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import instantiate

    from maskrcnn_ext import Predictor, get_config, optimize

    torch.set_num_threads(threads)
    image = models.photograph(*size)
    seconds = {}
    start = time.perf_counter()
    if side == "Detectron2":
        model = instantiate(get_config(config).model)
        model.to(models.device()).eval()
        DetectionCheckpointer(model).load(weights)

        def predict() -> None:
            with torch.inference_mode():
                model([{"image": models.to_tensor(image)}])

    else:
        predictor = Predictor(config, weights, overrides=[models.NO_RESIZE])

        def predict() -> None:
            predictor(image)

    for step in STEPS:
        if step == "optimize":
            if side == "Detectron2":
                continue
            start = time.perf_counter()
            predictor.model = optimize(predictor.model)
        elif step != "built and loaded":
            start = time.perf_counter()
            predict()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[step] = time.perf_counter() - start
    return seconds
