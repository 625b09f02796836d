"""Measurements of each object: one CSV an image, which :func:`join_tables` joins to one table of all images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.files import atomic_path
from maskrcnn_ext.common.tables import csv_table
from maskrcnn_ext.data.images.pixel_geometry import PixelGeometry, pixel_geometry
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage
from maskrcnn_ext.ops.shape_measures import measure_shape

_LENGTHS = ("area", "perimeter", "feret_max", "feret_min")
_COLUMNS = (
    *("image", "id", "class", "score", "x0", "y0", "x1", "y1", "centroid_x", "centroid_y"),
    *(f"{name}_px" for name in _LENGTHS),
    *("orientation", "eccentricity", "unit", *_LENGTHS, "map_x", "map_y"),
)
# Of the columns that are no numbers, or whole ones, so that all files of a table have the same schema.
_PARQUET_TYPES = {"image": "string", "class": "string", "unit": "string", "id": "int64", "track_id": "int64"}
_CHANNELS = {"BGR": ("blue", "green", "red"), "RGB": ("red", "green", "blue"), "L": ("grey",)}


def table(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns a CSV with one row an object, the highest score first; objects without any pixel are left out.

    Raises:
        InputError: the header of a medical image cannot be read.
    """
    image = predicted.item.image if isinstance(predicted.item.image, dict) else {}
    geometry = pixel_geometry(image) if image else None
    values = predicted.values
    channels = _CHANNELS.get(predicted.image_format, ())
    if len(channels) != values.shape[2]:
        channels = tuple(str(number) for number in range(values.shape[2]))
    tracks = predicted.instances.track_ids.tolist() if predicted.instances.has("track_ids") else None
    columns = [*_COLUMNS, *(f"{kind}_{name}" for name in channels for kind in ("mean", "std"))]
    rows = []
    scores = predicted.instances.scores.tolist()
    for index, (window, name, score, box) in enumerate(
        zip(predicted.masks(), predicted.names, scores, predicted.boxes, strict=True)
    ):
        if not window.mask.any():
            continue
        inside = window.crop(values)[window.mask > 0].astype(np.float64)
        intensities = np.stack([inside.mean(axis=0), inside.std(axis=0)], axis=1).ravel()
        shape = _shape_cells(window.mask, window.x, window.y, geometry)
        cells = [predicted.item.file_name, index + 1, name, score, *box, *shape, *intensities.tolist()]
        rows.append(cells if tracks is None else [*cells, tracks[index]])
    headers = columns if tracks is None else [*columns, "track_id"]
    return {f"{predicted.item.name}.csv": csv_table(headers, rows).encode("utf-8", "backslashreplace")}


def _shape_cells(mask: np.ndarray, left: int, top: int, geometry: PixelGeometry | None) -> list[Any]:
    """Returns the cells from ``centroid_x`` to ``map_y``."""
    pixels = measure_shape(mask)
    scaled = pixels if geometry is None else measure_shape(mask, geometry.matrix)
    x, y = pixels.centroid[0] + left, pixels.centroid[1] + top
    place = geometry.to_map(x, y) if geometry else None
    unit = geometry.unit if geometry else "px"
    lengths = [[getattr(found, name) for name in _LENGTHS] for found in (pixels, scaled)]
    return [x, y, *lengths[0], scaled.orientation, scaled.eccentricity, unit, *lengths[1], *(place or (None, None))]


def join_tables(folder: Path, names: Sequence[str], *, parquet: bool = False) -> Path:
    """Joins the CSVs of images to ``objects.csv``, or to ``objects.parquet``.

    Args:
        folder: of the outputs; the CSVs are in ``table`` below it.
        names: of the items, in the order of the rows; those without a CSV are skipped.
        parquet: whether to write Parquet: texts, whole numbers and, all others, float64.

    Returns:
        The file.

    Raises:
        InputError: pyarrow is not installed.
    """
    rows: list[dict[str, str]] = []
    columns: dict[str, None] = dict.fromkeys(_COLUMNS)
    for name in names:
        file = folder / "table" / f"{name}.csv"
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                columns |= dict.fromkeys(reader.fieldnames or ())
                rows += reader
    target = folder / ("objects.parquet" if parquet else "objects.csv")
    with atomic_path(target) as partial:
        if parquet:
            pyarrow = require("pyarrow", extra="parquet", purpose="--save parquet")
            parquet_module = require("pyarrow.parquet", extra="parquet", purpose="--save parquet")
            types = {column: _PARQUET_TYPES.get(column, "float64") for column in columns}
            cells = {column: [_cell(row.get(column), types[column]) for row in rows] for column in columns}
            schema = pyarrow.schema([(column, pyarrow.type_for_alias(kind)) for column, kind in types.items()])
            parquet_module.write_table(pyarrow.table(cells, schema=schema), partial)
        else:
            text = csv_table(list(columns), [[row.get(column) for column in columns] for row in rows])
            partial.write_bytes(text.encode("utf-8"))
    return target


def _cell(text: str | None, kind: str) -> str | int | float | None:
    """Returns the value of a cell of the CSV in a column of a type; None if it is empty."""
    if not text:
        return None
    return text if kind == "string" else int(text) if kind == "int64" else float(text)
