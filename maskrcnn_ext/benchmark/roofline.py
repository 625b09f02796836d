"""Compares the parts of a prediction with the machine's peak FLOP/s and memory bandwidth (roofline model)."""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.tables import Row, Table

REST = "image to tensor"
# Module of a GeneralizedRCNN -> the part that its time counts for, without the time of listed modules inside it.
PARTS = {
    "backbone": "backbone and FPN",
    "proposal_generator.rpn_head": "RPN head",
    "proposal_generator": "proposals",
    "roi_heads.box_pooler": "box pooling",
    "roi_heads.box_head": "box head",
    "roi_heads.box_predictor": "box head",
    "roi_heads": "boxes to detections",
    "roi_heads.mask_pooler": "mask pooling",
    "roi_heads.mask_head": "mask head",
}
POST, TOTAL = "masks to the image", "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--config", default=models.R50, help="config of the model (default: %(default)s)")
    parser.add_argument("--size", type=models.size, default=(800, 1216), help="size of the image (default: 800x1216)")
    parser.add_argument("--matrix", type=models.positive, default=4096, help="side of the matrices that are multiplied")
    parser.add_argument("--copy", type=models.positive, default=1024, help="megabytes to copy")


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Measures the ceilings of the machine, counts the work of each part, and times the parts of both sides in turn."""
    from detectron2.modeling.postprocessing import detector_postprocess

    from maskrcnn_ext.modeling.compact_rcnn import compact_postprocess

    flops_per_second, bytes_per_second, note = measure_ceilings(args.matrix, args.copy, args.repeats)
    with TemporaryDirectory() as folder:
        weights = models.detectron2_weights(Path(folder) / "model.pth", args.config, [models.NO_RESIZE], args.size)
        stock = models.detectron2_model(args.config, weights)
        ours = models.quick_predictor(args.config, weights).model
    meters = {"Detectron2": Meter(stock, detector_postprocess), "maskrcnn_ext": Meter(ours, compact_postprocess)}
    image = models.photograph(*args.size)
    flops, moved = count_work(meters["Detectron2"], image)
    rounds = [{side: meter.predict(image) for side, meter in meters.items()} for _ in range(args.repeats + 1)][1:]
    rows = []
    for part in dict.fromkeys((REST, *PARTS.values(), POST, TOTAL)):
        least = max(flops[part] / flops_per_second, moved[part] / bytes_per_second) if part != TOTAL else 0
        values: dict[str, float | int | str] = {"GFLOP": flops[part] / 1e9, "MB": moved[part] / 1e6} if least else {}
        medians = {side: statistics.median(one[side][part] for one in rounds) for side in meters}
        for side, median in medians.items():
            values[f"{side} ms"] = 1e3 * median
            if least:
                values[f"{side} attains"] = f"{least / median:.0%}"
        values["times as fast"] = medians["Detectron2"] / medians["maskrcnn_ext"]
        if least:
            values["bound by"] = "computing" if flops[part] / flops_per_second == least else "memory"
        rows.append(Row(part, values=values))
    yield Table(f"{args.config.removesuffix('.py')}, {args.size[0]} x {args.size[1]} pixels, by parts", rows, note)


def measure_ceilings(side: int, megabytes: int, repeats: int) -> tuple[float, float, str]:
    """Returns the FLOP/s and bytes/s that this machine attains at best, and a note for the reader."""
    import torch

    device = models.device()

    def product(dtype: torch.dtype) -> float:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        return 2 * side**3 / shortest_time(lambda: a @ b, repeats)

    source = torch.ones(megabytes * 250_000, device=device)
    target = torch.ones_like(source)
    bandwidth = 2 * source.nbytes / shortest_time(lambda: target.copy_(source), repeats)
    flops = product(torch.float32)
    low = f", {product(torch.bfloat16) / 1e12:.2f} TFLOP/s in bf16" if models.computes_bf16() else ""
    return (
        flops,
        bandwidth,
        f"This machine: {flops / 1e12:.2f} TFLOP/s in float32{low} (matrix product of {side} x {side}), {bandwidth / 1e9:.1f} GB/s "
        f"(copy of {megabytes} MB, read and written). GFLOP: convolutions and matrix products. MB: weights, inputs and outputs of these "
        "and of RoIAlign; all other operators could be fused into them. Attains: the shortest time that the ceilings allow, as a fraction "
        "of the time taken. Winograd convolutions need fewer FLOPs than are counted.",
    )


def shortest_time(function: Callable[[], Any], repeats: int) -> float:
    """Returns the shortest time of several runs in seconds, after a warm-up run."""
    times = []
    for _ in range(repeats + 1):
        start = _now()
        function()
        times.append(_now() - start)
    return min(times[1:])


def _now() -> float:
    """Returns the clock in seconds, after a wait for the GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Meter:
    """Times the parts of a model by forward hooks.

    Attributes:
        part: the innermost part that is running.
    """

    def __init__(self, model: Any, postprocess: Callable[..., Any]) -> None:
        """Adds hooks to a GeneralizedRCNN; `postprocess` brings its results to the size of the image."""
        self.model, self._postprocess = model, postprocess
        self._outer: list[str] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self.part, self._since = REST, 0.0
        for name, module in model.named_modules():
            part = PARTS.get(name.replace(".rpn.", "."))  # in which ours keeps the stock one
            if part is not None:
                module.register_forward_pre_hook(lambda *_, part=part: self._enter(part))
                module.register_forward_hook(lambda *_: self._leave())

    def predict(self, image: Any) -> dict[str, float]:
        """Returns the seconds of each part and of all together."""
        import torch

        self._seconds.clear()
        self._since = start = _now()
        with torch.no_grad():
            (found,) = self.model.inference([{"image": models.to_tensor(image)}], do_postprocess=False)
            self._enter(POST)
            self._postprocess(found, *found.image_size)
            self._leave()
        return {**self._seconds, TOTAL: _now() - start}

    def _enter(self, part: str) -> None:
        self._add_elapsed()
        self._outer.append(self.part)
        self.part = part

    def _leave(self) -> None:
        self._add_elapsed()
        self.part = self._outer.pop()

    def _add_elapsed(self) -> None:
        now = _now()
        self._seconds[self.part] += now - self._since
        self._since = now


def count_work(meter: Meter, image: Any) -> tuple[Counter[str], Counter[str]]:
    """Returns the FLOPs of each part, and the bytes that its layers read and write."""
    import torch
    from torch.utils.flop_counter import flop_registry

    from maskrcnn_ext.compat import observed_operators, tensors_in

    flops: Counter[str] = Counter()
    moved: Counter[str] = Counter()

    def count(operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        if operator in flop_registry:
            flops[meter.part] += flop_registry[operator](*args, **kwargs, out_val=out)
        if operator in flop_registry or operator == torch.ops.torchvision.roi_align:
            moved[meter.part] += sum(tensor.nbytes for tensor in tensors_in((args, out)))

    with observed_operators(count):
        meter.predict(image)
    return flops, moved
