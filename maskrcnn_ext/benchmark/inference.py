"""Measures prediction, from images to boxes and masks, in each installed runtime."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.measuring import add_clock, in_new_process, measure, memory
from maskrcnn_ext.benchmark.tables import Row, Table
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    Predict = Callable[[list[np.ndarray]], list[Any]]

_FAMILIES = ("Detectron2", "torchvision", "ONNX Runtime", "OpenVINO", "maskrcnn_ext")
SIZES = (((800, 1216), 1), ((640, 640), 8), ((256, 256), 16))
LIGHT_SIZES = (((640, 640), 1),)
_NOTE = (
    "Detectron2 returns masks as arrays of the image's size, torchvision as probabilities of that size, exported models as pixels of the "
    "boxes, and maskrcnn_ext as RLEs. torchvision's ResNet has its strides in the 3 x 3 convolutions and computes more."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument(
        "--config",
        help=f"config of Detectron2 and maskrcnn_ext (default: {models.R50}, then {models.LIGHT} if timm is installed)",
    )
    parser.add_argument(
        "--size", type=models.size, help="size of the images, such as 800x1216 (default: several cases)"
    )
    parser.add_argument(
        "--batch", type=models.positive, default=1, help="images of --size at once (default: %(default)s)"
    )
    parser.add_argument(
        "--sides",
        nargs="+",
        metavar="SIDE",
        choices=_FAMILIES,
        default=_FAMILIES,
        help=f"what to measure, of {', '.join(map(repr, _FAMILIES))}; all are in memory at the same time (default: all)",
    )
    add_clock(parser)


@dataclass(frozen=True)
class Case:
    """One measurement; picklable, for other processes.

    Attributes:
        folder: folder of the weights and the exported models.
        config: config of Detectron2's model.
        size: height and width of the images.
        batch: number of images at once.
        threads: number of threads of each side.
    """

    folder: Path
    config: str
    size: tuple[int, int]
    batch: int
    threads: int

    def exported(self, name: str) -> Path:
        """Returns the file of an exported model; a batched model takes all images at once."""
        return self.folder / ("batched" if self.batch > 1 else "single") / name


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Measures the sides in turn, each as its users run it. New processes measure the memory of single images."""
    given = [(args.size, args.batch)] if args.size else None
    plans: dict[str, Sequence[tuple[tuple[int, int], int]]] = {args.config or models.R50: given or SIZES}
    if not args.config and find_spec("timm"):
        plans[models.LIGHT] = given or LIGHT_SIZES
    for config, sizes in plans.items():
        with TemporaryDirectory() as folder:
            yield from _measure_config(Path(folder), config, sizes, args)


def _measure_config(
    folder: Path, config: str, sizes: Sequence[tuple[tuple[int, int], int]], args: argparse.Namespace
) -> Iterator[Table]:
    import torch

    cases = [Case(folder, config, size, batch, torch.get_num_threads()) for size, batch in sizes]
    absent = write_models(cases)
    names = [name for name in SIDES if _family(name) in args.sides and _family(name) not in absent]
    if not models.computes_bf16():
        names = [name for name in names if not name.endswith("bf16")]
        absent["bf16"] = "this processor has no instructions for it"
    if not models.computes_int8():
        names = [name for name in names if not name.endswith("int8")]
        absent["int8"] = "it is for CPUs with instructions for it"
    note = " ".join([_NOTE, *(f"Not measured: {name} ({reason})." for name, reason in absent.items())])
    for case in cases:
        images = [models.photograph(*case.size, seed) for seed in range(case.batch)]
        sides = {name: partial(open_side(name, case), images) for name in names}
        rows: dict[str, Any] = {name: {"detections": count_detections(side())} for name, side in sides.items()}
        seconds = measure(sides, args.repeats, clock=args.clock)
        for name, times in seconds.items():
            threads = 1 if args.clock == "cpu" else case.threads
            rows[name]["images/s a thread"] = case.batch / statistics.median(times) / threads
        del sides
        if case.batch == 1:
            rows = {name: {**row, **in_new_process(memory_of, name, case)} for name, row in rows.items()}
        yield Table(
            f"{case.config.removesuffix('.py')}, {case.batch} x {case.size[0]} x {case.size[1]} pixels",
            [Row(name, seconds[name], row) for name, row in rows.items()],
            note,
        )


def write_models(cases: list[Case]) -> dict[str, str]:
    """Writes the weights and exported models of all sides. Returns the runtimes that are missing, with the reason."""
    from maskrcnn_ext.inference.loading import load_model
    from maskrcnn_ext.interop.export import Options, export
    from maskrcnn_ext.interop.export.recipe import build_recipe

    first = cases[0]
    is_light = first.config == models.LIGHT
    overrides = [models.NO_RESIZE, *(["model.backbone.bottom_up.pretrained=false"] if is_light else [])]
    weights = models.detectron2_weights(first.folder / "detectron2.pth", first.config, overrides, first.size)
    loaded = load_model(first.config, str(weights), device="cpu", overrides=[models.NO_RESIZE])
    absent = {}
    if is_light:
        absent["torchvision"] = "it has no model of this size"
    else:
        models.torchvision_weights(first.folder / "torchvision.pth", first.size)
    for target, (name, library, files) in _EXPORTED.items():
        try:
            __import__(library)
            for case in {case.batch > 1: case for case in cases}.values():
                recipe = build_recipe(loaded.model, loaded.mapper, loaded.classes, batched=case.batch > 1)
                for file in files:
                    images = models.calibration_images(case.size) if file == _INT8 and models.computes_int8() else []
                    if file != _INT8 or images:
                        export(loaded.model, recipe, target, case.exported(file), Options(calibration=images))
        except (ImportError, InputError) as error:
            absent[name] = str(error)
    return absent


_INT8 = "model.int8.xml"
_EXPORTED = {
    "onnx": ("ONNX Runtime", "onnxruntime", ["model.onnx"]),
    "openvino": ("OpenVINO", "openvino", ["model.xml", _INT8]),
}


def _family(name: str) -> str:
    """Returns whose side it is, without its dtype."""
    return name.partition(",")[0]


def open_side(name: str, case: Case) -> Predict:
    """Loads one side and returns its predict function."""
    predict = SIDES[name](case)
    if not _is_torch(name):
        return predict
    import torch

    torch.set_num_threads(case.threads)
    return models.synchronised(predict)


def _is_torch(name: str) -> bool:
    return not name.startswith(tuple(runtime for runtime, *_ in _EXPORTED.values()))


def _detectron2(case: Case, *, bf16: bool = False) -> Predict:
    return dense_predict(models.detectron2_model(case.config, case.folder / "detectron2.pth"), bf16=bf16)


def dense_predict(model: Any, *, bf16: bool = False) -> Predict:
    """Returns a function that predicts as Detectron2 does, with masks as arrays of the image's size."""
    import torch

    def predict(images: list[np.ndarray]) -> list[Any]:
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            return list(model([{"image": models.to_tensor(image)} for image in images]))

    return predict


def _torchvision(case: Case, *, bf16: bool = False) -> Predict:
    import torch

    device = models.device()
    model = models.torchvision_model(case.size, case.folder / "torchvision.pth").to(device)

    def predict(images: list[np.ndarray]) -> list[Any]:
        model.transform.min_size, model.transform.max_size = (min(images[0].shape[:2]),), max(images[0].shape[:2])
        tensors = [models.to_tensor(image[:, :, ::-1]).to(device) / 255 for image in images]
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            return list(model(tensors))

    return predict


def _exported(case: Case, *, file: str) -> Predict:
    from maskrcnn_ext.interop.export.runtimes import open_model

    return open_model(case.exported(file), case.threads)


def _openvino_bf16(case: Case, *, file: str = "model.xml") -> Predict:
    import openvino

    from maskrcnn_ext.interop.export.runtimes import OpenVinoRuntime

    class Hinted(OpenVinoRuntime):
        def __init__(self, file: Path, threads: int) -> None:
            super().__init__(file, threads)
            hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
            hints["INFERENCE_NUM_THREADS"] = threads
            self._model = openvino.Core().compile_model(file, "CPU", hints)

    return Hinted(case.exported(file), case.threads)


def _ours(case: Case, *, dtype: str) -> Predict:
    predictor = models.quick_predictor(case.config, case.folder / "detectron2.pth", dtype, size=case.size)
    return lambda images: list(predictor.predict(images, batch_size=len(images)))


SIDES: dict[str, Callable[[Case], Predict]] = {
    "Detectron2": _detectron2,
    "Detectron2, bf16": lambda case: _detectron2(case, bf16=True),
    "torchvision": _torchvision,
    "torchvision, bf16": lambda case: _torchvision(case, bf16=True),
    "ONNX Runtime": lambda case: _exported(case, file="model.onnx"),
    "OpenVINO": lambda case: _exported(case, file="model.xml"),
    "OpenVINO, bf16": _openvino_bf16,
    # Layers that are not in 8 bits are in bf16, as in maskrcnn_ext.
    "OpenVINO, int8": lambda case: _openvino_bf16(case, file=_INT8),
    "maskrcnn_ext": lambda case: _ours(case, dtype="fp32"),
    "maskrcnn_ext, bf16": lambda case: _ours(case, dtype="bf16"),
    "maskrcnn_ext, int8": lambda case: _ours(case, dtype="int8"),
}


def count_detections(found: list[Any]) -> int:
    """Returns the number of detections in the results of any side."""
    return sum(
        len(one["instances" if "instances" in one else "boxes"] if isinstance(one, dict) else one) for one in found
    )


def memory_of(name: str, case: Case) -> dict[str, float]:
    """Returns the memory of one side's first prediction; run it in a new process."""
    predict = open_side(name, case)
    images = [models.photograph(*case.size)]
    loaded, peak = memory(lambda: predict(images))
    values = {"peak MB": peak, "grows by MB": peak - loaded}
    if _is_torch(name):  # the others would need more memory with torch imported
        import torch

        if torch.cuda.is_available():
            values["CUDA peak MB"] = torch.cuda.max_memory_allocated() / 1e6
    return values
