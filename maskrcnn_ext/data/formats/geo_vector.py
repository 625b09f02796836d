"""Reads outlines from GeoJSON, GeoPackage and other formats of GDAL, in the coordinate reference system of the file."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# QuPath's list of features without a FeatureCollection around it, which GDAL does not read.
_LIST = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*[{\]]")
_AREAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


@dataclass(slots=True)
class Outlines:
    """The outlines of one file.

    Attributes:
        file: the file.
        crs: the coordinate reference system, a :class:`rasterio.crs.CRS`.
        geometries: (N,) valid Shapely polygons and multipolygons, two-dimensional.
        ids: the features' numbers in the file.
        values: the class attribute of each feature; empty texts without an attribute.
        properties: without an attribute, the values of each property of text, which may be classes.
    """

    file: Path
    crs: Any
    geometries: np.ndarray
    ids: list[int]
    values: list[str]
    properties: dict[str, Counter[str]] = field(default_factory=dict)


def read_outlines(file: Path, attribute: str | None = None, layer: str | None = None) -> Outlines:
    """Reads polygons and multipolygons.

    GeoJSON is in EPSG:4326 (RFC 7946) unless its ``crs`` member says otherwise. Self-intersecting outlines are made valid. Features
    without area, such as points and lines, are left out, with one warning for all.

    Args:
        file: the file.
        attribute: the property that holds the class name.
        layer: the layer to read; required if there are several.

    Raises:
        InputError: the file is unreadable or has no coordinate reference system, the layer is missing or not chosen, or a feature is
            broken or lacks the property.
    """
    pyogrio = require("pyogrio", extra="geo", purpose="georeferenced data")
    rasterio = require("rasterio", extra="geo", purpose="georeferenced data")
    if file.suffix.lower() == ".shp":
        _check_length(file)
    source = _source(file)
    try:
        layers = [str(name) for name, _ in pyogrio.list_layers(source)]
        if layer is not None and layer not in layers:
            raise InputError(f"{file}: has no layer {layer!r} (it has {', '.join(layers)})")
        if layer is None and len(layers) != 1:
            raise InputError(f"{file}: has the layers {', '.join(layers) or 'none'}: choose one by `layer`")
        info = pyogrio.read_info(source, layer=layer)
        properties = [str(name) for name in info["fields"]]
        texts = [name for name, kind in zip(properties, info["dtypes"], strict=True) if kind == "object"]
        with warnings.catch_warnings():
            # Problems that GDAL warns of are reported below.
            warnings.simplefilter("ignore", RuntimeWarning)
            meta, ids, encoded, fields = pyogrio.raw.read(
                source, layer=layer, columns=[attribute] if attribute else texts, return_fids=True, force_2d=True
            )
    except (pyogrio.errors.DataSourceError, UnicodeError) as error:
        raise InputError(f"{file}: not a readable vector file ({error})") from error
    except UnboundLocalError as error:  # raised by pyogrio if the .prj file is unreadable
        raise InputError(f"{file}: its coordinate reference system is damaged") from error
    except (pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError, pyogrio.errors.GeometryError) as error:
        raise InputError(f"{file}: damaged ({error})") from error
    if attribute is not None and len(ids) and attribute not in properties:
        raise InputError(f"{file}: no feature has the property {attribute!r} (they have {', '.join(properties)})")
    if meta["crs"] is None:
        raise InputError(
            f"{file}: has no coordinate reference system; if you know it: ogr2ogr -a_srs EPSG:<code> fixed.gpkg <file>"
        )
    try:
        crs = rasterio.crs.CRS.from_user_input(meta["crs"])
    except rasterio.errors.CRSError as error:
        raise InputError(f"{file}: unknown coordinate reference system {meta['crs']} ({error})") from error
    geometries, kept = _valid(file, ids, encoded)
    values = [_text(file, ids[i], attribute, fields[0][i]) if attribute else "" for i in kept]
    counts = {
        name: Counter(_class_name(str(column[i])) for i in kept if column[i])
        for name, column in zip(meta["fields"], fields, strict=True)
    }
    return Outlines(file, crs, geometries, [int(ids[i]) for i in kept], values, {} if attribute else counts)


def _source(file: Path) -> Path | bytes:
    """Returns a file for pyogrio, or its content where that cannot open it.

    Raises:
        InputError: it cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix in (".json", ".geojson") and file.is_file():
        with file.open("rb") as stream:
            first = stream.read(64)
        if _LIST.match(first):
            return f'{{"type": "FeatureCollection", "features": {read_text(file)}}}'.encode()
    # pyogrio takes a path for a URL, and cuts it at these characters.
    return file.read_bytes() if {";", "!"} & set(str(file)) and suffix != ".shp" else file


def _check_length(file: Path) -> None:
    """Raises if a shapefile is truncated, of which GDAL returns features without geometry. The header has the length in 16-bit words."""
    with file.open("rb") as stream:
        header = stream.read(28)
    expected, found = 2 * int.from_bytes(header[24:], "big"), file.stat().st_size
    if len(header) < 28 or found < expected:
        raise InputError(f"{file}: truncated, it has {found} of {max(expected, 100)} bytes")


def _valid(file: Path, ids: np.ndarray, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the geometries that have an area, and their indices."""
    geometries = shapely.from_wkb(encoded, on_invalid="ignore")
    for index, geometry in enumerate(geometries):
        if encoded[index] is not None and geometry is None:
            raise InputError(f"{file}: feature {ids[index]}: broken geometry (is a ring not closed?)")
        if geometry is not None and shapely.get_type_id(geometry) not in _AREAL:
            geometries[index] = None  # a point or a line
    broken = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    geometries[broken] = shapely.make_valid(geometries[broken])
    kept = np.flatnonzero(shapely.area(geometries) > 0)  # the area of a missing geometry is NaN
    if len(kept) < len(ids):
        left_out = np.setdiff1d(np.arange(len(ids)), kept)
        logger.warning(
            "%s: left out %s without area, such as feature %d",
            file,
            plural(len(left_out), "feature"),
            ids[left_out[0]],
        )
    return geometries[kept], kept


def _class_name(value: str) -> str:
    """Returns the name in a classification of QuPath, ``{"name": "a"}`` or ``{"names": ["a", "b"]}``; any other text itself."""
    try:
        found = json.loads(value)
        return ": ".join(found["names"]) if "names" in found else str(found["name"])
    except (ValueError, KeyError, TypeError):
        return value


def _text(file: Path, feature: int, attribute: str, value: Any) -> str:
    if value is None or value == "" or value != value:  # a missing number is NaN
        raise InputError(f"{file}: feature {feature}: has no `{attribute}`, which holds the class")
    if isinstance(value, str) and value.startswith(
        "{"
    ):  # QuPath's classification: {"name": "Tumor", "color": [200, 0, 0]}
        value = _class_name(value)
    # A column of integers is read as floats if a feature has no value.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
