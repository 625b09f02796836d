"""Reads outlines on georeferenced rasters: GeoJSON or GeoPackage on GeoTIFF, two files or two folders with equal file names.

Outlines are transformed to the raster's coordinate reference system and, by the inverse of its affine transform, to sub-pixel
coordinates; rasters may be rotated and sheared. A multipolygon is one object. COCO polygons have no holes: an outline with holes is cut
vertically through them into polygons that together cover the same pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.file_names import files_by_stem, pair_files, stem_of
from maskrcnn_ext.data.formats.geo_transform import Grid, pixel_grid, polygons_of, read_grid, reproject, without_holes
from maskrcnn_ext.data.formats.geo_vector import Outlines, read_outlines
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES
from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.data.formats.reading_many import collected
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.warnings import warn_of_classes
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import rle_area, segmentation_to_rle

logger = logging.getLogger(__name__)

RASTERS = (".tif", ".tiff")
VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb")


def read_geo(
    vector: Path,
    raster: Path,
    *,
    classes: Sequence[str] | None = None,
    attribute: str | None = None,
    layer: str | None = None,
    tile: int | None = None,
    overlap: int = 0,
    min_visible: float = 0.0,
    pixels: bool = False,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads outlines on rasters.

    Args:
        vector: a file of outlines, or a folder with a file of the same name for every raster.
        raster: a raster, or a folder of rasters. One file of outlines may cover a whole folder.
        classes: class names. With one class and no ``attribute``, every outline has this class. None for the attribute's values, sorted,
            or for "object" without an attribute.
        attribute: the property of the outlines that holds the class name; required with more than one class.
        layer: the layer to read; required if a GeoPackage has several.
        tile: the side of the square windows that a raster is cut into, in pixels; None for one image per raster.
        overlap: of neighbouring windows, in pixels.
        min_visible: an outline is left out of a window that shows less than this share of its area (0 to 1).
        pixels: whether the outlines are in pixels of the image, as QuPath exports them. The images then need no georeference, and may be
            PNG or JPEG as well.
        faults: gets the faults of files, which are left out; None to raise the first.

    Returns:
        One record per window, including windows without outlines, in the order of the rasters' names and then row by row. With ``tile``,
        its ``extra`` has the ``window`` [x, y, width, height] in pixels of the raster, its id ends with ``_<x>_<y>``, and outlines are
        clipped to the window and in its coordinates. Clipped outlines without a pixel are left out. A warning counts outlines outside of
        all rasters.

    Raises:
        InputError: a file is unreadable, no outline is on the raster, a class is unknown, or a feature is not a polygon.
    """
    if classes and len(classes) > 1 and attribute is None:
        raise InputError(
            f"{vector}: with {len(classes)} classes, `attribute` must name the property that holds the class"
        )
    if not 0 <= overlap < (1 if tile is None else tile):
        limit = "0 without `tile`" if tile is None else f"0 or more and less than `tile`, {tile}"
        raise InputError(f"{raster}: `overlap` is {overlap}, expected {limit}")
    suffixes = IMAGE_SUFFIXES if pixels else RASTERS
    if raster.is_dir() and vector.is_file():
        pairs = [(file, vector) for file in files_by_stem(raster, suffixes).values()]
    else:
        pairs = pair_files(raster, vector, suffixes, VECTORS)
    if not 0 <= min_visible <= 1:
        raise InputError(f"{raster}: `min_visible` is {min_visible}, expected a share from 0 to 1")
    outlines: dict[Path, Outlines] = {}
    for file in dict.fromkeys(file for _, file in pairs):
        with collected(faults):
            outlines[file] = read_outlines(file, attribute, layer)
    names = list(classes or ("object",))
    if not classes and attribute is not None:
        names = sorted({value for found in outlines.values() for value in found.values})
    if not classes and attribute is None:
        for file, found in outlines.items():
            for name, values in found.properties.items():
                warn_of_classes(values, name, file)
    categories: dict[Path, list[int]] = {}
    for file, found in outlines.items():
        with collected(faults):
            categories[file] = _categories(found, attribute, names)

    records = []
    nowhere = {file: set(found.ids) for file, found in outlines.items()}
    misplaced: dict[Path, str] = {}  # by file of outlines: one that serves several rasters need not be on each
    for file, vectors in pairs:
        if vectors not in categories:
            continue
        with collected(faults):
            found = outlines[vectors]
            grid = pixel_grid(file, found.crs) if pixels else read_grid(file)
            objects = shapely.STRtree(_on_raster(found, grid))
            misplaced[vectors] = (
                "" if len(objects) or not found.ids else misplaced.get(vectors, _misplaced(found, file, grid))
            )
            nowhere[vectors] -= {found.ids[index] for index in np.flatnonzero(~shapely.is_missing(objects.geometries))}
            stem = stem_of(file, suffixes) or file.stem
            for window in tile_windows(grid.width, grid.height, tile or max(grid.width, grid.height), overlap):
                x, y, width, height = window
                record = ImageRecord(str(file), stem if tile is None else f"{stem}_{x}_{y}", height, width)
                if tile is not None:
                    record.extra["window"] = list(window)
                for index, polygons in in_window(objects, window, min_visible):
                    box = box_of_polygons(polygons, height, width)
                    record.annotations.append(
                        Annotation(categories[vectors][index], box, polygons, id=found.ids[index])
                    )
                records.append(record)
    for message in filter(None, misplaced.values()):
        with collected(faults):
            raise InputError(message)
    for file, ids in nowhere.items():
        if ids:
            logger.warning(
                "%s: left out %s outside of all rasters, such as feature %d: add the rasters",
                file,
                plural(len(ids), "feature"),
                min(ids),
            )
    return DataSet(names, records)


def tile_windows(width: int, height: int, tile: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Returns the windows (x, y, width, height) that cover an image, row by row, in pixels.

    All are ``tile`` wide and high: the last of a row or column is moved back to end at the image's border, so it overlaps more. An image
    smaller than a tile has one window, as large as the image.

    Example:
        >>> tile_windows(10, 4, tile=6, overlap=0)
        [(0, 0, 6, 4), (4, 0, 6, 4)]
    """

    def starts(length: int) -> list[int]:
        regular = range(0, max(length - overlap, 1), tile - overlap)
        return sorted({max(min(start, length - tile), 0) for start in regular})

    return [(x, y, min(tile, width), min(tile, height)) for y in starts(height) for x in starts(width)]


def _categories(outlines: Outlines, attribute: str | None, names: list[str]) -> list[int]:
    if attribute is None:
        return [0] * len(outlines.ids)
    categories = []
    for feature, value in zip(outlines.ids, outlines.values, strict=True):
        if value not in names:
            raise InputError(
                f"{outlines.file}: feature {feature}: `{attribute}` is {value!r}, expected one of {', '.join(names)}"
            )
        categories.append(names.index(value))
    return categories


def _on_raster(outlines: Outlines, grid: Grid) -> np.ndarray:
    """Returns the outlines in pixels of the raster; None for those outside of it."""
    try:
        on_map = reproject(outlines.geometries, outlines.crs, grid)
    except InputError as error:
        raise InputError(f"{outlines.file}: {error}") from error
    # Reprojection can make an outline intersect itself.
    objects: np.ndarray = shapely.make_valid(shapely.transform(on_map, grid.to_pixels))
    objects[~shapely.intersects(objects, shapely.box(0, 0, grid.width, grid.height))] = None
    return objects


def in_window(
    objects: shapely.STRtree, window: tuple[int, int, int, int], min_visible: float
) -> Iterator[tuple[int, list[list[float]]]]:
    """Yields the index and the polygons, in the window's coordinates, of every object that the window shows."""
    x, y, width, height = window
    frame = shapely.box(x, y, x + width, y + height)
    for index in sorted(objects.query(frame)):
        whole = objects.geometries[index]
        cut = not frame.contains(whole)
        seen = polygons_of(shapely.intersection(whole, frame) if cut else whole)
        area = sum(part.area for part in seen)
        if not seen or area < min_visible * whole.area:
            continue
        polygons = [
            (shapely.get_coordinates(piece.exterior)[:-1] - (x, y)).flatten().tolist()
            for part in seen
            for piece in without_holes(part)
        ]
        if not cut or rle_area(segmentation_to_rle(polygons, height, width)):
            yield int(index), polygons


def _misplaced(outlines: Outlines, raster: Path, grid: Grid) -> str:
    theirs, ours = (
        ", ".join(f"{value:.10g}" for value in bounds)
        for bounds in (shapely.total_bounds(outlines.geometries), grid.bounds())
    )
    return (
        f"{outlines.file}: no outline is on {raster}: the {len(outlines.ids)} extend over ({theirs}) in {outlines.crs}, "
        f"the raster over ({ours}) in {grid.crs} (left, bottom, right, top); is the outlines' coordinate reference system missing or "
        "wrong? Set it: ogr2ogr -a_srs EPSG:<code> fixed.gpkg <file>"
    )


FORMAT = Format(
    name="geo",
    description="Outlines (GeoJSON, GeoPackage, shapefile) on georeferenced rasters",
    read=read_geo,
    options=(
        Option("vector", "the outlines: a file for all rasters, or a folder with one for each", "path", required=True),
        Option("raster", "a raster, or a folder of them", "path", required=True),
        Option("attribute", "the property that holds the class name", "text"),
        Option("layer", "which layer of a GeoPackage", "text"),
        Option("tile", "the side of square windows, in pixels", "whole number"),
        Option("overlap", "how far neighbouring windows overlap, in pixels", "whole number"),
        Option("min_visible", "the share of an outline's area that a window must show", "number"),
        Option("pixels", "whether the outlines are in pixels of the image, as of QuPath", "switch"),
    ),
    shorthand=("vector", "raster"),
    extra="geo",
    lists_faults=True,
)
