"""Tracks of a video as a text file of KITTI MOTS (vision.rwth-aachen.de/page/mots), a row an object and frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from detectron2.structures import Instances

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_mask


class MOTSWriter:
    """Writes ``<sequence>.txt`` frame by frame: rows ``frame id class height width rle``.

    Masks of a frame must not overlap, or the benchmark refuses the file: a pixel belongs to the object of the highest score, and an object
    of which nothing is left has no row. Ids are the tracks' own, which no two objects of a video share.
    """

    def __init__(self, file: Path, class_ids: Sequence[int]) -> None:
        """Opens the file.

        Args:
            file: replaced where it is there.
            class_ids: of every class of the model, in their order: for the benchmark 1 is a car and 2 a pedestrian.
        """
        self._class_ids = list(class_ids)
        self._file = file.open("w", encoding="ascii")

    def write(self, frame: int, found: Instances) -> None:
        """Writes the objects of one frame.

        Args:
            frame: its number, from 0 on.
            found: what :meth:`maskrcnn_ext.inference.video.tracking.Tracker.update` returns.

        Raises:
            InputError: there are no masks.
        """
        if not found.has("pred_masks"):
            raise InputError("MOTS is about masks, and the model predicts none: choose another output, such as json")
        height, width = found.image_size
        taken = np.zeros((height, width), dtype=bool)
        ids, categories = found.track_ids.tolist(), found.pred_classes.tolist()
        rles = {}
        for index in torch.argsort(found.scores, descending=True, stable=True).tolist():
            mask = next(iter(found.pred_masks[index])).numpy()
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
