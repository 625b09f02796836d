"""Writes the report of a diverged iteration: a text, the batch as a file that can be run again, and a picture of the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils import comm
from PIL import Image, ImageDraw
from torch import Tensor, nn

from maskrcnn_ext.common.files import atomic_path, write_atomic
from maskrcnn_ext.common.tables import text_table
from maskrcnn_ext.data.tools.browse import to_bgr
from maskrcnn_ext.engine.guard.diagnosis import DivergedIteration
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.image_colors import ImageColors
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled

_WIDTH = 480  # of an image in the picture, in pixels
_COLUMNS = 4
_GOOD, _BAD = (80, 220, 80), (255, 40, 40)
_STRUCTURES: dict[str, Any] = {
    "detectron2.Boxes": Boxes,
    "detectron2.BitMasks": BitMasks,
    "detectron2.Keypoints": Keypoints,
}


def write_report(diverged: DivergedIteration, model: nn.Module, folder: Path) -> Path:
    """Writes ``report.txt``, ``batch.pth`` and ``batch.png``. Processes other than the main one add their rank to the names.

    Args:
        diverged: the diagnosis.
        model: the model, as it was diagnosed.
        folder: where to write; it is made if it is missing.

    Returns:
        The path of the text.

    Raises:
        WriteError: a file cannot be written.
    """
    rank = f"_rank{comm.get_rank()}" if comm.get_rank() else ""
    facts = {"iteration": diverged.iteration, "losses": diverged.losses, "error": diverged.error}
    save_batch(diverged.inputs, folder / f"batch{rank}.pth", **facts)
    pictured = [index for index, sample in enumerate(diverged.inputs) if _is_picture(sample.get("image"))]
    if pictured:
        draw_batch(
            [diverged.inputs[index] for index in pictured],
            [diverged.image_name(index) for index in pictured],
            [index in diverged.suspects for index in pictured],
            str(getattr(model, "input_format", None) or "BGR"),
            folder / f"batch{rank}.png",
        )
    report = folder / f"report{rank}.txt"
    write_atomic(report, "\n".join(_report_lines(diverged, model)) + "\n")
    return report


def _is_picture(image: Any) -> bool:
    return isinstance(image, Tensor) and image.ndim == 3 and image.numel() > 0


def _report_lines(diverged: DivergedIteration, model: nn.Module) -> Iterator[str]:
    process = f"process {comm.get_rank()} of {comm.get_world_size()}"
    yield f"Diverged in iteration {diverged.iteration}, {process}: {diverged.symptom()}"
    yield ""
    yield from _advice_lines(diverged)
    yield ""
    yield f"learning rate: {', '.join(f'{rate:.6g}' for rate in sorted(set(diverged.rates)))}"
    yield from (f"loss {name}: {value:.6g}" for name, value in diverged.losses.items())
    if diverged.history:
        yield f"total losses before: {', '.join(f'{value:.4g}' for value in diverged.history)}"
    yield ""
    yield f"first module whose output is not finite: {diverged.first_module or 'none'}"
    if not diverged.whole.is_faulty:
        yield "  (the batch did not diverge when it was run again: random draws decide)"
    yield ""
    yield "images of the batch:"
    for index in range(len(diverged.inputs)):
        yield f"  {diverged.image_name(index)}"
        yield from (f"    {text}" for text in diverged.input_faults[index])
        if diverged.alone:
            rerun = diverged.alone[index]
            if rerun.is_faulty:
                reason = rerun.first or rerun.error or "its gradients are not finite"
                yield f"    alone: diverges, {reason}"
            else:
                yield f"    alone: total loss {sum(rerun.losses.values()):.6g}"
    yield ""
    if diverged.error:
        yield "The gradients are those of the previous iteration."
    yield from _norm_lines(model)


def _advice_lines(diverged: DivergedIteration) -> Iterator[str]:
    if any(diverged.input_faults):
        yield "Fix or leave out the images named below. `maskrcnn-ext check-data` finds such faults in the data set; a fault that it"
        yield "does not find comes from the augmentations. maskrcnn_ext.SafeMapper skips images that cannot be read."
    elif diverged.suspects:
        yield "Only some images diverge, and no fault was found in them: look at batch.png and at their annotations."
    else:
        yield "No single image is at fault: the weights have grown too large, or a learning rate is too high. Lower optimizer.lr, lengthen"
        yield "the warm-up, or set train.clip_grad=1.0. With float16, use train.amp.dtype=bf16, which has the range of float32."


def _norm_lines(model: nn.Module) -> Iterator[str]:
    rows = []
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        grads = [parameter.grad for parameter in own.values() if parameter.grad is not None]
        weights = _norm(own.values())
        rows.append((name or "(the model)", *weights, *(_norm(grads) if grads else (None, 0))))
    bad_weights = [f"{name} ({bad} values)" for name, _, bad, _, _ in rows if bad]
    bad_grads = [f"{name} ({bad} values)" for name, _, _, _, bad in rows if bad]
    yield f"modules with weights that are not finite: {', '.join(bad_weights) or 'none'}"
    yield f"modules with gradients that are not finite: {', '.join(bad_grads) or 'none'}"
    yield ""
    cells = [(f"{w:.6g}", "-" if g is None else f"{g:.6g}", name) for name, w, _, g, _ in rows]
    yield text_table(cells, ["norm of weights", "norm of gradients", "module"], align=["right", "right", "left"])


@torch.no_grad()
def _norm(tensors: Any) -> tuple[float, int]:
    """Returns the norm of all values together, and the number of values that are not finite."""
    square, bad = 0.0, 0
    for tensor in tensors:
        square += float(tensor.double().square().sum())
        bad += int((~tensor.isfinite()).sum())
    return math.sqrt(square) if math.isfinite(square) else square, bad


def save_batch(inputs: Sequence[Mapping[str, Any]], path: Path, **facts: Any) -> None:
    """Writes inputs of a model as tensors and plain values, which ``torch.load(path, weights_only=True)`` reads.

    Args:
        inputs: as returned by a training loader.
        path: the file to write.
        facts: plain values to store with the inputs.

    Raises:
        WriteError: the file cannot be written.

    Example:
        >>> save_batch([{"image": torch.zeros(3, 4, 4), "image_id": 7}], tmp_path / "batch.pth", iteration=12)
        >>> load_batch(tmp_path / "batch.pth")[0]["image_id"]
        7
    """
    with atomic_path(path) as partial:
        torch.save({**facts, "inputs": [_to_plain(sample) for sample in inputs]}, partial)


def load_batch(path: str | Path) -> list[dict[str, Any]]:
    """Reads a file of :func:`save_batch` as inputs for ``model(...)``.

    Raises:
        InputError: the file does not exist or has another content.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return [_from_plain(sample) for sample in saved["inputs"]]
    except Exception as error:  # errors of torch, zipfile, pickle and the system
        raise InputError(f"{path}: not a batch written by the divergence guard ({type(error).__name__})") from error


def _to_plain(value: Any) -> Any:
    if isinstance(value, Instances):
        return {
            "image_size": tuple(value.image_size),
            "detectron2.Instances": {k: _to_plain(v) for k, v in value.get_fields().items()},
        }
    if isinstance(value, PolygonMasks):
        return {
            "detectron2.PolygonMasks": [[torch.as_tensor(np.asarray(p)) for p in outline] for outline in value.polygons]
        }
    if isinstance(value, Unlabelled):
        mask = None if value.region is None else value.region.mask
        return {"maskrcnn_ext.Unlabelled": _to_plain([len(value), mask, value.labelled_classes])}
    if isinstance(value, ImageColors):
        return {"maskrcnn_ext.ImageColors": _to_plain([len(value), value.pixels, value.is_bgr])}
    for name, kind in _STRUCTURES.items():
        if isinstance(value, kind):
            return {name: value.tensor.detach().cpu()}
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(inner) for inner in value]
    return value if value is None or type(value) in (bool, int, float, str, bytes) else str(value)


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"image_size", "detectron2.Instances"}:
        fields = {name: _from_plain(inner) for name, inner in value["detectron2.Instances"].items()}
        return Instances(tuple(value["image_size"]), **fields)
    if set(value) == {"detectron2.PolygonMasks"}:
        return PolygonMasks([[p.numpy() for p in outline] for outline in value["detectron2.PolygonMasks"]])
    if set(value) == {"maskrcnn_ext.Unlabelled"}:
        count, mask, classes = value["maskrcnn_ext.Unlabelled"]
        return Unlabelled(count, None if mask is None else IgnoreRegion(mask), classes)
    if set(value) == {"maskrcnn_ext.ImageColors"}:
        count, pixels, is_bgr = value["maskrcnn_ext.ImageColors"]
        return ImageColors(count, pixels, is_bgr=is_bgr)
    for name, kind in _STRUCTURES.items():
        if set(value) == {name}:
            return kind(value[name])
    return {key: _from_plain(inner) for key, inner in value.items()}


def draw_batch(
    inputs: Sequence[Mapping[str, Any]], captions: Sequence[str], marked: Sequence[bool], input_format: str, path: Path
) -> None:
    """Draws the images of a batch with their boxes, side by side.

    Args:
        inputs: as returned by a training loader.
        captions: text above each image.
        marked: whether to frame each image in red; boxes without an area are always red.
        input_format: order of the channels, such as "BGR".
        path: the picture to write.

    Raises:
        WriteError: the file cannot be written.
    """
    tiles = [_draw_tile(s, c, m, input_format) for s, c, m in zip(inputs, captions, marked, strict=True)]
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    heights = [max(tile.height for tile in row) for row in rows]
    canvas = Image.new("RGB", (_WIDTH * max(len(row) for row in rows), sum(heights)))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            canvas.paste(tile, (_WIDTH * column, top))
        top += height
    with atomic_path(path) as partial:
        canvas.save(partial)


def _draw_tile(sample: Mapping[str, Any], caption: str, marked: bool, input_format: str) -> Image.Image:
    pixels = sample["image"].detach().cpu().numpy()
    if not np.issubdtype(pixels.dtype, np.integer):
        finite = pixels[np.isfinite(pixels)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        pixels = np.nan_to_num(pixels.astype(np.float32), nan=high, posinf=high, neginf=low)
    image = Image.fromarray(np.ascontiguousarray(to_bgr(pixels.transpose(1, 2, 0), input_format)[..., ::-1]))
    scale = (_WIDTH - 4) / image.width
    size = (_WIDTH - 4, max(1, round(image.height * scale)))
    tile = Image.new("RGB", (_WIDTH, size[1] + 20), _BAD if marked else (40, 40, 40))
    tile.paste(image.resize(size), (2, 18))
    pen = ImageDraw.Draw(tile)
    pen.text((4, 3), caption, fill=(255, 255, 255))
    instances = sample.get("instances")
    boxes = instances.gt_boxes.tensor.tolist() if isinstance(instances, Instances) and instances.has("gt_boxes") else []
    for x0, y0, x1, y1 in boxes:
        if not np.isfinite([x0, y0, x1, y1]).all():
            continue
        corners = [2 + min(x0, x1) * scale, 18 + min(y0, y1) * scale, 2 + max(x0, x1) * scale, 18 + max(y0, y1) * scale]
        if x1 > x0 and y1 > y0:
            pen.rectangle(corners, outline=_GOOD)
        else:  # a cross, because a box without area would be invisible
            x, y = corners[0], corners[1]
            pen.line([x - 8, y, x + 8, y], fill=_BAD, width=2)
            pen.line([x, y - 8, x, y + 8], fill=_BAD, width=2)
    return tile
