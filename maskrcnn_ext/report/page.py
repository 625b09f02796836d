"""The HTML page of a run: one self-contained file."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.report.curves import plot
from maskrcnn_ext.report.draw import Item, draw, palette
from maskrcnn_ext.report.run import Detection, Run, read_run
from maskrcnn_ext.report.template import write_page

_NUM_IMAGES = 12
_MIN_SCORE = 0.5  # a detection below it is not drawn
_SIDE = 440  # pixels of a picture's longer side
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def write_report(folder: Path, page: Path, *, title: str) -> Path:
    """Writes the page of the run in a folder.

    Args:
        folder: the run's ``train.output_dir``.
        page: the file to write.
        title: the page's title.

    Returns:
        `page`.

    Raises:
        InputError: the folder is not that of a run, or an image of it is gone, or the page cannot be written.
    """
    run = read_run(folder)
    tasks = [task for task in ("segm", "bbox", "keypoints") if f"{task}/AP" in run.results]
    losses = sorted({name for line in run.scalars for name in line if name.startswith("loss_")})
    return write_page(
        page,
        "page.html",
        title=title,
        iterations=max((line["iteration"] + 1 for line in run.scalars if "total_loss" in line), default=0),
        num_images=len(run.images),
        num_objects=sum(len(image["annotations"]) for image in run.images),
        min_score=_MIN_SCORE,
        tasks={"segm": "masks", "bbox": "boxes", "keypoints": "keypoints"},
        headline=[(task, run.results[f"{task}/AP"]) for task in tasks],
        metrics=_METRICS,
        summary=[(task, [run.results.get(f"{task}/{metric}") for metric in _METRICS]) for task in tasks],
        class_tasks=[task for task in tasks if any(f"{task}/AP-{name}" in run.results for name in run.classes)],
        classes=_class_rows(run),
        results=run.results,
        loss_curve=plot(run.scalars, ["total_loss", *losses], ylabel="loss", log=True),
        ap_curve=plot(run.scalars, [f"{task}/{metric}" for task in tasks for metric in ("AP", "AP50")], ylabel="AP"),
        pictures=[_picture(run, image) for image in _choose(run.images)],
    )


def _class_rows(run: Run) -> list[dict[str, Any]]:
    counts = Counter(a["category_id"] for image in run.images for a in image["annotations"])
    return [
        {"name": name, "count": counts[index], "color": _css(palette(index))} for index, name in enumerate(run.classes)
    ]


def _choose(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Picks images evenly over the set, the same ones every time."""
    if len(images) <= _NUM_IMAGES:
        return images
    return [images[i * len(images) // _NUM_IMAGES] for i in range(_NUM_IMAGES)]


def _picture(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    pixels = cv2.imread(record["file_name"], cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(
            f"cannot read {record['file_name']}: the report needs the images that the run was evaluated on"
        )
    scale = _SIDE / max(pixels.shape[:2])
    found = [d for d in run.detections.get(record["image_id"], []) if d.score >= _MIN_SCORE]
    found.sort(key=lambda detection: detection.score)
    # One class: colours tell objects apart. Several: they tell classes apart.
    by_class = len(run.classes) > 1
    truth = [
        _true_item(a, palette(a["category_id"] if by_class else i), run, by_class)
        for i, a in enumerate(record["annotations"])
    ]
    predicted = [_found_item(d, palette(d.category if by_class else i), run, by_class) for i, d in enumerate(found)]
    return {
        "name": Path(record["file_name"]).name,
        "truth": _embed(draw(pixels, truth, scale=scale)),
        "predicted": _embed(draw(pixels, predicted, scale=scale)),
        "num_truth": len(truth),
        "num_predicted": len(predicted),
    }


def _true_item(annotation: dict[str, Any], color: tuple[int, int, int], run: Run, labelled: bool) -> Item:
    from detectron2.structures import BoxMode

    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    label = run.classes[annotation["category_id"]] if labelled else ""
    return Item(annotation.get("segmentation"), tuple(box), label, color)


def _found_item(detection: Detection, color: tuple[int, int, int], run: Run, labelled: bool) -> Item:
    label = f"{run.classes[detection.category]} {detection.score:.2f}" if labelled else ""
    return Item(detection.segmentation, detection.box, label, color)


def _css(color: tuple[int, int, int]) -> str:
    return f"rgb({color[2]}, {color[1]}, {color[0]})"


def _embed(pixels: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
