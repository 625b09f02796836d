"""Outputs that are made of all images together: tables, files of label tools, and label maps of volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maskrcnn_ext.inference.outputs.label_files import LABEL_KINDS, predicted_records, write_label_files
from maskrcnn_ext.inference.outputs.table import join_tables
from maskrcnn_ext.inference.stitching import stitch
from maskrcnn_ext.inference.volumes import Volume


def write_joined(
    folder: Path,
    names: Sequence[str],
    kinds: Sequence[str],
    *,
    threshold: float,
    volumes: Sequence[Volume] = (),
    least_iou: float = 0.0,
) -> tuple[dict[str, Path], Counter[str]]:
    """Writes the outputs of a job whose images are all predicted.

    Args:
        folder: of the outputs, with ``predictions.json``, ``images.json`` and the outputs of single images.
        names: of the images' outputs, in the order of the rows of tables.
        kinds: of :func:`.kinds.choose_kinds`; those of single images and videos are skipped.
        threshold: least score of the objects in label files and volumes.
        volumes: whose slices the images are.
        least_iou: of the masks of one object in neighbouring slices of `volumes`.

    Returns:
        The files and folders, by kind; and the contents that the formats of label tools cannot express, each with its count.

    Raises:
        InputError: label files are requested for images that are parts of one file, or pyarrow is not installed.
    """
    files = {
        kind: join_tables(folder, names, parquet=kind == "parquet") for kind in kinds if kind in ("table", "parquet")
    }
    label_kinds = [kind for kind in kinds if kind in LABEL_KINDS]
    if not label_kinds and not volumes:
        return files, Counter()
    data = predicted_records(folder, threshold)
    lost = write_label_files(data, folder, label_kinds)
    if volumes:
        files["volumes"] = folder / "volumes"
        stitch(data, volumes, files["volumes"], least_iou)
    return files, lost
