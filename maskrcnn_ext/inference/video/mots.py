"""Writes the tracks of a video as a KITTI MOTS text file (vision.rwth-aachen.de/page/mots), one row per object and frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Instances

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_mask


class MOTSWriter:
    """Writes ``<sequence>.txt`` frame by frame: rows ``frame id class height width rle``. A context manager.

    The benchmark rejects files in which masks of one frame overlap. So each pixel goes to the object of the highest score, and an object
    without any pixel left has no row. The ids are those of the tracks, unique within a video.

    Example:
        ::

            with MOTSWriter(Path("0002.txt"), class_ids=[1, 2]) as mots:
                mots.write(0, tracker.update(instances))
    """

    def __init__(self, file: Path, class_ids: Sequence[int]) -> None:
        """Opens the file.

        Args:
            file: the file to write, replaced if it exists.
            class_ids: the id of each class of the model; in the benchmark, 1 is a car and 2 a pedestrian.
        """
        self._class_ids = list(class_ids)
        self._file = file.open("w", encoding="ascii")

    def write(self, frame: int, found: Instances) -> None:
        """Writes the objects of one frame.

        Args:
            frame: number of the frame, from 0.
            found: the result of :meth:`maskrcnn_ext.inference.video.tracking.Tracker.update`.

        Raises:
            InputError: the instances have no masks.
        """
        if not found.has("pred_masks"):
            raise InputError("MOTS files need masks, and the model predicts none: choose another output, such as json")
        height, width = found.image_size
        taken = np.zeros((height, width), dtype=bool)
        ids, categories = found.track_ids.tolist(), found.pred_classes.tolist()
        rles = {}
        for index in torch.argsort(found.scores, descending=True, stable=True).tolist():
            mask = found.pred_masks[index].numpy()
            free = mask & ~taken
            taken |= mask
            if free.any():
                rles[index] = encode_mask(free)["counts"]
        for index in sorted(rles):
            row = (frame, ids[index], self._class_ids[categories[index]], height, width, rles[index])
            self._file.write(" ".join(map(str, row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> MOTSWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
