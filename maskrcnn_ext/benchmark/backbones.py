"""Measures prediction with the tested backbones of timm, eager and optimized."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.inference import dense_predict
from maskrcnn_ext.benchmark.measuring import add_clock, measure
from maskrcnn_ext.benchmark.tables import Row, Table
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.modeling.parts import Network

SIZES = ((800, 1216), (640, 640))
EAGER = "eager"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--config", default=models.R50, help="config whose backbone is replaced (default: %(default)s)")
    parser.add_argument(
        "--networks", nargs="+", metavar="NAME", help="names of `maskrcnn-ext parts` (default: all networks there)"
    )
    parser.add_argument("--size", type=models.size, help="size of the image, such as 800x1216 (default: two sizes)")
    add_clock(parser)


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Measures one network after the other; the sides of a network run in turn."""
    from maskrcnn_ext.modeling.parts import NETWORKS

    networks = list(map(_find_network, args.networks)) if args.networks else NETWORKS
    note = (
        "Medians, from pixels to boxes and masks, with random weights. Parameters and MACs (800 x 1216) are those of the network without "
        "pyramid and heads. Each ratio is to the eager model of its row."
    )
    if not models.computes_bf16():
        note += " Not measured: bf16 (this processor has no instructions for it)."
    if not models.computes_int8():
        note += " Not measured: int8 (it is for CPUs with instructions for it)."
    for size in [args.size] if args.size else SIZES:
        rows = [
            Row(one.name, values=measure_network(one, args.config, size, args.repeats, args.clock)) for one in networks
        ]
        yield Table(f"{args.config.removesuffix('.py')}, {size[0]} x {size[1]} pixels, by backbone", rows, note)


def measure_network(
    network: Network, config: str, size: tuple[int, int], repeats: int, clock: str
) -> dict[str, float | int | str]:
    """Returns parameters and MACs of a network, and the time of each side."""
    image = models.photograph(*size)
    sides = {name: partial(predict, [image]) for name, predict in open_sides(network, config, size).items()}
    medians = {name: statistics.median(times) for name, times in measure(sides, repeats, clock=clock).items()}
    values: dict[str, float | int | str] = {"M parameters": network.parameters / 1e6, "GMACs": network.macs / 1e9}
    for name, median in medians.items():
        values[f"{name}, ms"] = 1e3 * median
        if name != EAGER:
            values[f"{name}, times as fast"] = f"{medians[EAGER] / median:.2f}"
    return values


def open_sides(network: Network, config: str, size: tuple[int, int]) -> dict[str, Callable[[list[Any]], Any]]:
    """Returns the predict functions of a network: eager, optimized in float32, and in bf16 and int8 if the machine has instructions."""
    from maskrcnn_ext import optimize

    node = "model.backbone.bottom_up"
    pixels = [f"{node}.{key}=${{model.{key}}}" for key in ("pixel_mean", "pixel_std", "input_format")]
    overrides = [models.NO_RESIZE, *network.override().split(), f"{node}.pretrained=false", *pixels]
    model = models.detectron2_model(config, "", overrides, device=models.device())
    image = {"image": models.to_tensor(models.photograph(*size))}
    models.calibrate(model, lambda: model.inference([image], do_postprocess=False))
    sides = {EAGER: model, "fp32": optimize(model, dtype="fp32")}
    if models.computes_bf16():
        sides["bf16"] = optimize(model, dtype="bf16")
    if models.computes_int8():
        sides["int8"] = optimize(model, dtype="int8", calibrate=[image])
    return {name: models.synchronised(dense_predict(side)) for name, side in sides.items()}


def _find_network(name: str) -> Network:
    from maskrcnn_ext.modeling.parts import Network, find_part

    found = find_part(name)
    if not isinstance(found, Network):
        raise InputError(f"--networks {name}: not a backbone; `maskrcnn-ext parts` lists them")
    return found
