"""Reads COCO results and checks them against their ground truth."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from maskrcnn_ext.data.formats.polygons import check_outline
from maskrcnn_ext.data.formats.text_files import read_json
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.stored_results import StoredResults
from maskrcnn_ext.evaluation.truth import LARGEST, Truth
from maskrcnn_ext.ops.rle import rle_box, segmentation_to_rle
from maskrcnn_ext.ops.rle_checks import check_rle, find_broken_rle

# In the order of the file; `StoredResults` of a large one.
Results: TypeAlias = Sequence[dict[str, Any]]
# The types that load_results accepts.
ResultsLike: TypeAlias = Sequence[dict[str, Any]] | Path | str
# Files with more bytes stay on the disk: as Python objects they would take several times as much memory.
_IN_MEMORY = 2**28


def load_results(results: ResultsLike, truth: Truth, *, in_memory: int = _IN_MEMORY) -> Results:
    """Reads COCO results, such as ``inference/coco_instances_results.json`` of a run.

    Args:
        results: a file or its content; it is not changed.
        truth: the ground truth of the same images.
        in_memory: files of more bytes stay on the disk; the detections of an image are read when they are used.

    Returns:
        One dict per detection, in the same order, with ``image_id``, ``category_id``, ``score`` and ``bbox``, and with ``segmentation``
        (as compressed RLE) and ``keypoints`` if the results have them.

    Raises:
        InputError: the format is another one, a detection is of an image or category that the ground truth lacks, or a value is broken.
    """
    if isinstance(results, StoredResults):
        return results
    name = str(results) if isinstance(results, str | Path) else "the results"
    check = _Check(truth, name)
    if isinstance(results, str | Path):
        path = Path(results)
        if path.is_file() and path.stat().st_size > in_memory:
            return StoredResults(path, check, check.complete)
        content = read_json(path)
    else:
        content = results
    if isinstance(content, dict) and "annotations" in content:
        raise InputError(
            f"{name}: these are annotations, expected COCO results: a list of detections, each with a score"
        )
    if not isinstance(content, Sequence):
        raise InputError(f"{name}: not COCO results, which are a list of detections")
    return check(content, 0)


class _Check:
    """Checks entries against the ground truth, and completes them."""

    def __init__(self, truth: Truth, name: str) -> None:
        self._name, self._truth_name = name, truth.name
        self._sizes = {image["id"]: (image["height"], image["width"]) for image in truth.images}
        self._categories = {category["id"] for category in truth.categories}
        own = sorted(self._categories)
        self._known = "its ids are " + ", ".join(map(str, own[:10])) + (", ..." if len(own) > 10 else "")

    def __call__(self, content: Sequence[Any], first: int) -> list[dict[str, Any]]:
        """Returns the entries, completed; `first` is the number of the first."""
        name = self._name
        if not all(isinstance(found, dict) for found in content):
            raise InputError(f"{name}: not COCO results, which are a list of detections")
        what = f"image of {self._truth_name}"
        _check_ids(content, "image_id", self._sizes, name, what, "results of other images?", first)
        _check_ids(
            content, "category_id", self._categories, name, f"category of {self._truth_name}", self._known, first
        )
        checked = [
            _check_result(found, self._sizes[found["image_id"]], f"{name}: entry {first + i}")
            for i, found in enumerate(content)
        ]
        _check_masks(checked, name, first)
        return [_with_box(found) for found in checked]

    def complete(self, found: dict[str, Any]) -> dict[str, Any]:
        """Returns an entry that was checked before, completed."""
        return _with_box(_check_result(found, self._sizes[found["image_id"]], self._name))


def by_mask_score(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a COCO result whose ``score`` is its ``mask_score``, if it has one."""
    return {**result, "score": result.get("mask_score", result["score"])}


def ranked_by(task: str, results: Results) -> list[dict[str, Any]]:
    """Returns copies of results, which evaluators change, with the scores that rank a task.

    Example:
        >>> ranked_by("segm", [{"score": 0.5, "mask_score": 0.4, "bbox": [0, 0, 9, 9], "segmentation": {}}])
        [{'score': 0.4, 'mask_score': 0.4, 'segmentation': {}}]
    """
    if task != "segm":
        return [dict(one) for one in results]
    # With a box, the area of a mask would be that of its box.
    return [{key: value for key, value in by_mask_score(one).items() if key != "bbox"} for one in results]


def renumber(record: dict[str, Any], images: Mapping[Any, int], categories: Mapping[Any, int]) -> dict[str, Any]:
    """Returns a copy of an annotation or a result with numbers as ids of its image and category."""
    return {**record, "image_id": images[record["image_id"]], "category_id": categories[record["category_id"]]}


def by_image(results: Results) -> dict[Any, list[dict[str, Any]]]:
    """Returns results by the id of their image.

    Example:
        >>> by_image([{"image_id": 7, "score": 0.5}])
        {7: [{'image_id': 7, 'score': 0.5}]}
    """
    found: dict[Any, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["image_id"], []).append(result)
    return found


def _check_ids(
    content: Sequence[dict[str, Any]], key: str, known: Container[Any], name: str, what: str, hint: str, first: int
) -> None:
    for number, found in enumerate(content, start=first):
        if key not in found:
            raise InputError(f"{name}: entry {number} has no `{key}`")
        if isinstance(found[key], list | dict):
            raise InputError(f"{name}: entry {number} has the `{key}` {found[key]!r:.100}, expected a number")
    wrong = [found[key] for found in content if found[key] not in known]
    if wrong:
        raise InputError(
            f"{name}: {len(wrong)} of {len(content)} have a `{key}`, such as {wrong[0]!r}, of no {what} ({hint})"
        )


def _check_result(found: dict[str, Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    if not _are_numbers([found.get("score")]):
        raise InputError(f"{where} has the `score` {found.get('score')!r:.100}, expected a number")
    if "mask_score" in found and not _are_numbers([found["mask_score"]]):
        raise InputError(f"{where} has the `mask_score` {found['mask_score']!r:.100}, expected a number")
    box, mask, points = (found.get(key) for key in ("bbox", "segmentation", "keypoints"))
    if box is None and not mask and points is None:
        raise InputError(f"{where} has neither `bbox` nor `segmentation` nor `keypoints`")
    if box is not None and not (_are_numbers(box) and len(box) == 4 and min(box[2:]) >= 0):
        raise InputError(
            f"{where} has the `bbox` {box!r:.100}, expected [x, y, width, height] with sides of at least 0"
        )
    if points is not None and not (_are_numbers(points) and points and len(points) % 3 == 0):
        raise InputError(f"{where} has `keypoints` that are not three numbers a keypoint")
    if not mask:
        return found
    if isinstance(mask, dict) and list(mask.get("size", ())) != list(size):
        raise InputError(
            f"{where} has an RLE of size {mask.get('size')}, but its image is {size[0]} x {size[1]} (height, width)"
        )
    if isinstance(mask, list) and not all(_are_numbers(polygon) for polygon in mask):
        raise InputError(
            f"{where} has a `segmentation` that is neither an RLE nor polygons [[x, y, x, y, x, y, ...], ...]"
        )
    if isinstance(mask, dict) and not isinstance(mask.get("counts"), str | bytes | list):
        raise InputError(f"{where} has a `segmentation` that is neither an RLE nor polygons")
    for polygon in mask if isinstance(mask, list) else ():
        check_outline(polygon, *size, f"{where} has a `segmentation`")
    try:
        return {**found, "segmentation": segmentation_to_rle(mask, *size)}
    except InputError as error:
        raise InputError(f"{where} has {error}") from None
    except Exception as error:  # pycocotools raises many types, Exception itself among them
        raise InputError(f"{where} has a `segmentation` that is neither an RLE nor polygons") from error


def _check_masks(results: Results, name: str, first: int) -> None:
    with_mask = [number for number, found in enumerate(results) if found.get("segmentation")]
    broken = find_broken_rle([results[number]["segmentation"] for number in with_mask])
    if broken is not None:
        try:
            check_rle(results[with_mask[broken]]["segmentation"])
        except ValueError as error:
            raise InputError(f"{name}: entry {first + with_mask[broken]} has {error}") from error


def _with_box(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the result with a ``bbox``; a missing one is that of the mask or of the keypoints."""
    if found.get("bbox") is not None:
        return found
    if found.get("segmentation"):
        x0, y0, x1, y1 = rle_box(found["segmentation"])
        return {**found, "bbox": [x0, y0, x1 - x0, y1 - y0]}
    xs, ys = found["keypoints"][0::3], found["keypoints"][1::3]
    return {**found, "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]}


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST for value in values
    )
