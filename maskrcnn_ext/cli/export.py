"""``maskrcnn-ext export``: writes a model for another runtime."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskrcnn_ext.errors import InputError

_TARGETS = ("onnx", "openvino", "torchscript", "torch-export", "opencv")
_EIGHT_BITS = ("onnx", "openvino")
_WRITTEN = """\
files that are written, by --to:
  onnx          OUT.onnx, for ONNX Runtime and other ONNX runtimes
  openvino      OUT.xml and OUT.bin
  torchscript   OUT.ts for libtorch with torchvision's operators, and OUT.json
  torch-export  OUT.pt2 for torch.export.load, and OUT.json
  opencv        the folder OUT, for OpenCV's DNN module and NumPy
The model takes an image (C, H, W) of any size, or with --batch N images of one size (N, C, H, W). It returns boxes, scores,
classes, and masks on a grid over each box. docs/export.md explains how to prepare images and draw the results.
`maskrcnn-ext verify` compares the exported model with the original.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _WRITTEN
    parser.add_argument("config", help="folder of a training run, or a config: a file, or the name of a shipped one")
    parser.add_argument(
        "weights",
        nargs="?",
        help="a checkpoint (default: the best or else the last of the run; the weights that the config names)",
    )
    parser.add_argument("--to", required=True, choices=_TARGETS, help="the runtime")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file or folder to write")
    parser.add_argument("--opset", type=int, default=17, help="ONNX opset, 16 or more (default: %(default)s)")
    parser.add_argument("--batch", action="store_true", help="take N images of one size per call; not for --to opencv")
    parser.add_argument(
        "--int8", action="store_true", help="quantise to 8 bits, calibrated on the images of --calibrate"
    )
    parser.add_argument(
        "--calibrate", metavar="IMAGES", help="for --int8: a folder, or a data set such as nuclei_train"
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=64,
        metavar="N",
        help="number of calibration images (default: %(default)s)",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="overrides of the config"
    )


def run(args: argparse.Namespace) -> int:
    """Exports a model, and prints the file and the command that verifies it."""
    if args.int8 != (args.calibrate is not None):
        raise InputError("--int8 and --calibrate belong together: give both or neither")
    if args.int8 and args.to not in _EIGHT_BITS:
        raise InputError(f"--int8 is for --to {' and '.join(_EIGHT_BITS)}, not for {args.to}")
    if args.calibration_images < 1:
        raise InputError(f"--calibration-images {args.calibration_images}: expected at least 1")
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.inference.loading import load_model, sample_images
    from maskrcnn_ext.interop.export import Options, export
    from maskrcnn_ext.interop.export.recipe import build_recipe

    # On the CPU, the reference for all runtimes. The exported model runs on any device of its runtime.
    loaded = load_model(args.config, args.weights, device="cpu", overrides=args.set)
    recipe = build_recipe(loaded.model, loaded.mapper, loaded.classes, batched=args.batch)
    images = sample_images(args.calibrate, args.calibration_images, loaded.mapper) if args.int8 else []
    written = export(loaded.model, recipe, args.to, args.output, Options(opset=args.opset, calibration=images))
    size = sum(
        file.stat().st_size for file in ([written] if written.is_file() else written.rglob("*")) if file.is_file()
    )
    if args.to == "openvino":
        size += written.with_suffix(".bin").stat().st_size
    print(f"{written} ({size / 1e6:.1f} MB)")
    print_next(["verify", str(written), "--against", args.config, loaded.weights, "--images", "FOLDER"])
    return 0
