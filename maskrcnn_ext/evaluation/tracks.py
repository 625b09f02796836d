"""Measures tracks of masks through videos: HOTA (arXiv:2009.07736), and sMOTSA, MOTSA and MOTSP (MOTS, arXiv:1902.03604).

The numbers equal those of TrackEval on KITTI MOTS. It is not a dependency, because it requires opencv-python, which overwrites the
headless build.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from maskrcnn_ext.common.tables import markdown_table
from maskrcnn_ext.data.formats.checked_values import checked_rle
from maskrcnn_ext.data.formats.file_names import list_files
from maskrcnn_ext.data.formats.kitti_mots import read_tracks_png
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.tables import to_json_values
from maskrcnn_ext.ops.rle import RLE, encode_labels, pairwise_iou

logger = logging.getLogger(__name__)

# HOTA's thresholds of localisation, and the IoU that a match of MOTS exceeds.
_ALPHAS = np.arange(1, 20) / 20
_MOTS_IOU = 0.5
# The class of ignored regions in KITTI MOTS.
_IGNORED = 10
# Longer numbers have no meaning here, and Python refuses the longest.
_DIGITS = 19
_EPSILON = np.finfo(float).eps

# Number of the frame -> class -> track id -> mask.
Frames: TypeAlias = dict[int, dict[int, dict[int, RLE]]]


def read_tracks(path: Path) -> dict[str, Frames]:
    """Reads tracks in the format of KITTI MOTS and MOTS20 (vision.rwth-aachen.de/page/mots).

    Args:
        path: a text of a sequence with rows ``frame id class height width rle``, as ``predict --track --save mots`` writes it; or a
            folder of such texts, or of folders ``<sequence>/<frame>.png`` whose 16-bit pixels are ``1000 * class + number``.

    Returns:
        The frames of each sequence by its name. Frames without objects may be missing.

    Raises:
        InputError: no tracks, a sequence occurs twice, or a row or a file is broken.
    """
    if not path.is_dir():
        return {path.stem: _read_rows(path)}
    found = [one for one in list_files(path, "*") if one.is_dir() or one.suffix == ".txt"]
    if not found:
        raise InputError(f"{path}: no <sequence>.txt or <sequence>/<frame>.png here")
    sequences: dict[str, Frames] = {}
    for one in found:
        name = one.name if one.is_dir() else one.stem
        if name in sequences:
            raise InputError(f"{path}: sequence {name} occurs twice, as a folder and as a text: remove one")
        sequences[name] = _read_pngs(one) if one.is_dir() else _read_rows(one)
    return sequences


def _read_rows(file: Path) -> Frames:
    frames: Frames = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        where = f"{file}, line {number}"
        row = line.split()
        if not row:
            continue
        if len(row) != 6 or not all(one.isdecimal() and len(one) < _DIGITS for one in row[:5]):
            raise InputError(f"{where}: expected `frame id class height width rle`")
        frame, track, class_id, height, width = map(int, row[:5])
        _, rle = checked_rle({"size": [height, width], "counts": row[5]}, height, width, where)
        tracks = frames.setdefault(frame, {}).setdefault(class_id, {})
        if track in tracks and class_id != _IGNORED:
            raise InputError(f"{where}: object {track} occurs twice in frame {frame}")
        tracks[track] = rle
    return frames


def _read_pngs(folder: Path) -> Frames:
    frames: Frames = {}
    for file in list_files(folder, "*.png"):
        if not file.stem.isdecimal():
            raise InputError(f"{file}: expected the number of a frame as its name")
        pixels = read_tracks_png(file)
        classes = frames.setdefault(int(file.stem), {})
        for value, _, rle in encode_labels(pixels):
            classes.setdefault(value // 1000, {})[value] = rle
    return frames


def evaluate_tracks(truth: Mapping[str, Frames], found: Mapping[str, Frames]) -> dict[str, Any]:
    """Measures tracks against the true ones, class by class.

    * HOTA is the geometric mean of detection accuracy, DetA, and association accuracy, AssA, averaged over the IoUs 0.05, 0.1 ... 0.95
      from which a mask is localised. LocA is the mean IoU of the matches.
    * sMOTSA, MOTSA and MOTSP count matches of an IoU above 0.5 (TP), other masks (FP, FN) and switches of identity (IDS).

    Masks that match no object and are more than half inside ignored regions (class 10 of the ground truth) do not count.

    Args:
        truth: the true tracks of each sequence, see :func:`read_tracks`.
        found: the predicted ones; all sequences must have true ones.

    Returns:
        ``{"classes": [{"class", "sequences": [{"sequence", **metrics}, ...], **metrics}, ...]}`` for all classes with true tracks, by
        their ids. The metrics are ``HOTA``, ``DetA``, ``AssA``, ``LocA``, ``sMOTSA``, ``MOTSA`` and ``MOTSP`` in percent, and the counts
        ``IDS``, ``TP``, ``FP``, ``FN``; those of a class are of all its sequences together. Values that cannot be measured are None.

    Raises:
        InputError: a sequence is unknown, or frames differ in size.

    Example:
        >>> from maskrcnn_ext.ops.rle import encode_mask
        >>> frames = {0: {1: {7: encode_mask(np.ones((4, 4), np.uint8))}}}
        >>> (row,) = evaluate_tracks({"0002": frames}, {"0002": frames})["classes"]
        >>> row["HOTA"], row["sMOTSA"]
        (100.0, 100.0)
    """
    unknown = sorted(found.keys() - truth.keys())
    if unknown:
        raise InputError(
            f"sequence {unknown[0]} has no ground truth: the sequences there are {', '.join(sorted(truth)[:10])}"
        )
    class_ids = _class_ids(truth)
    others = [class_id for class_id in _class_ids(found) if class_id not in class_ids]
    if others:
        logger.warning(
            "Not measured: class %s of the results, which the ground truth does not have; it has class %s",
            *(", ".join(map(str, ids[:10])) or "-" for ids in (others, class_ids)),
        )
    rows = []
    for class_id in class_ids:
        counts = {name: _count(truth[name], found.get(name, {}), class_id, name) for name in sorted(truth)}
        sequences = [{"sequence": name, **one.metrics()} for name, one in counts.items()]
        total = sum(counts.values(), _Counts())
        rows.append({"class": class_id, **total.metrics(), "sequences": sequences})
    values: dict[str, Any] = to_json_values({"classes": rows})
    return values


def _class_ids(sequences: Mapping[str, Frames]) -> list[int]:
    """Returns the classes of all masks, without that of ignored regions."""
    return sorted({key for frames in sequences.values() for frame in frames.values() for key in frame} - {_IGNORED})


def track_table(summary: dict[str, Any]) -> str:
    """Returns the metrics of the classes as a Markdown table."""
    metrics = list(_Counts().metrics())
    rows = [[f"class {row['class']}", *(_cell(row[name]) for name in metrics)] for row in summary["classes"]]
    return markdown_table(rows, ["", *metrics], align=["left", *["right"] * len(metrics)])


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


@dataclass
class _Counts:
    """Sums over the frames of a sequence, or of several; arrays are for the T thresholds of HOTA."""

    true_masks: int = 0
    found_masks: int = 0
    matches: np.ndarray = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    matched_iou: np.ndarray = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    # Sum over the matches of the association accuracy of their pair of tracks.
    association: np.ndarray = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    hits: int = 0
    hit_iou: float = 0.0
    switches: int = 0

    def __add__(self, other: _Counts) -> _Counts:
        return _Counts(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})

    def metrics(self) -> dict[str, float | int]:
        """Returns the metrics that :func:`evaluate_tracks` documents, nan without masks."""
        union = self.true_masks + self.found_masks - self.matches
        detection = self.matches / np.maximum(union, 1)
        association = self.association / np.maximum(self.matches, 1)
        # Without a match, as in TrackEval.
        location = np.where(self.matches > 0, self.matched_iou / np.maximum(self.matches, 1), 1.0)
        curves = {
            "HOTA": np.sqrt(detection * association),
            "DetA": detection,
            "AssA": association,
            "LocA": location,
        }
        known = self.true_masks + self.found_masks > 0
        wrong = self.found_masks - self.hits + self.switches
        objects = self.true_masks or float("nan")
        return {
            **{name: 100 * float(curve.mean()) if known else float("nan") for name, curve in curves.items()},
            "sMOTSA": 100 * (self.hit_iou - wrong) / objects,
            "MOTSA": 100 * (self.hits - wrong) / objects,
            "MOTSP": 100 * self.hit_iou / self.hits if self.hits else float("nan"),
            "IDS": self.switches,
            "TP": self.hits,
            "FP": self.found_masks - self.hits,
            "FN": self.true_masks - self.hits,
        }


@dataclass(frozen=True)
class _Frame:
    """The G true and D found masks of a class in a frame: their tracks as indices, (G) and (D), and their IoUs (G, D)."""

    true: np.ndarray
    found: np.ndarray
    iou: np.ndarray


def _count(truth: Frames, found: Frames, class_id: int, name: str) -> _Counts:
    """Returns the counts of a class in a sequence."""
    frames = []
    true_index: dict[int, int] = {}
    found_index: dict[int, int] = {}
    for number in sorted(truth.keys() | found.keys()):
        true_masks, found_masks = truth.get(number, {}).get(class_id, {}), found.get(number, {}).get(class_id, {})
        ignored = list(truth.get(number, {}).get(_IGNORED, {}).values())
        sizes = {tuple(rle["size"]) for rle in (*true_masks.values(), *found_masks.values(), *ignored)}
        if len(sizes) > 1:
            texts = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
            raise InputError(f"sequence {name}, frame {number}: masks of {texts} pixels")
        iou = _ious(list(true_masks.values()), list(found_masks.values()))
        kept = _counted(iou, list(found_masks.values()), ignored)
        true = [true_index.setdefault(track, len(true_index)) for track in true_masks]
        tracks = [track for track, is_kept in zip(found_masks, kept, strict=True) if is_kept]
        of_found = [found_index.setdefault(track, len(found_index)) for track in tracks]
        frames.append(_Frame(np.array(true, dtype=int), np.array(of_found, dtype=int), iou[:, kept]))
    counts = _hota(frames, len(true_index), len(found_index))
    _add_mots(counts, frames)
    return counts


def _ious(true: list[RLE], found: list[RLE]) -> np.ndarray:
    if not true or not found:
        return np.zeros((len(true), len(found)))
    return pairwise_iou(true, found)


def _counted(iou: np.ndarray, found: list[RLE], ignored: list[RLE]) -> np.ndarray:
    """Returns which of D masks count, (D) bool: those that match an object, and those outside ignored regions."""
    counted = np.ones(len(found), dtype=bool)
    if found and ignored:
        # The regions of a frame do not overlap; the IoU with a crowd is the share of the mask in it.
        inside = pairwise_iou(found, ignored, [True] * len(ignored)).sum(axis=1)
        counted = inside <= _MOTS_IOU + _EPSILON
        counted[_mots_matches(iou)[1]] = True
    return counted


def _mots_matches(iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the pairs with an IoU above 0.5, at most one for each mask.

    Masks of one frame do not overlap in MOTS, so that there is one choice only; for others the sum of IoUs is largest.
    """
    rows, columns = linear_sum_assignment(np.where(iou > _MOTS_IOU, iou, 0), maximize=True)
    matched = iou[rows, columns] > _MOTS_IOU
    return rows[matched], columns[matched]


def _hota(frames: list[_Frame], num_true: int, num_found: int) -> _Counts:
    """Returns the counts of HOTA, of G true and D found tracks.

    In each frame, masks are matched so that the sum of IoU times the alignment of their tracks over the whole sequence is largest.
    """
    potential = np.zeros((num_true, num_found))
    true_count, found_count = np.zeros((num_true, 1)), np.zeros((1, num_found))
    for frame in frames:
        union = frame.iou.sum(axis=0) + frame.iou.sum(axis=1)[:, None] - frame.iou
        share = np.divide(frame.iou, union, out=np.zeros_like(union), where=union > _EPSILON)
        potential[np.ix_(frame.true, frame.found)] += share
        true_count[frame.true, 0] += 1
        found_count[0, frame.found] += 1
    alignment = potential / np.maximum(true_count + found_count - potential, _EPSILON)
    counts = _Counts(int(true_count.sum()), int(found_count.sum()))
    pairs = np.zeros((len(_ALPHAS), num_true, num_found))
    for frame in frames:
        scores = alignment[np.ix_(frame.true, frame.found)] * frame.iou
        rows, columns = linear_sum_assignment(scores, maximize=True)
        iou = frame.iou[rows, columns]
        hit = iou >= _ALPHAS[:, None] - _EPSILON
        counts.matches += hit.sum(axis=1)
        counts.matched_iou += (hit * iou).sum(axis=1)
        pairs[:, frame.true[rows], frame.found[columns]] += hit
    counts.association += (pairs**2 / np.maximum(true_count + found_count - pairs, 1)).sum(axis=(1, 2))
    return counts


def _add_mots(counts: _Counts, frames: list[_Frame]) -> None:
    """Adds the counts of MOTS. A switch is a match with another track than at the object's last match."""
    last: dict[int, int] = {}
    for frame in frames:
        rows, columns = _mots_matches(frame.iou)
        counts.hits += len(rows)
        counts.hit_iou += float(frame.iou[rows, columns].sum())
        for true, found in zip(frame.true[rows].tolist(), frame.found[columns].tolist(), strict=True):
            counts.switches += last.get(true, found) != found
            last[true] = found
