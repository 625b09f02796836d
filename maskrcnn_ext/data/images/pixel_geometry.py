"""The size of pixels in units of length: pixel spacing of DICOM, zooms of NIfTI, transform of GeoTIFF."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.data.images.medical import is_dicom
from maskrcnn_ext.errors import InputError

_UNITS = {
    "metre": "m",
    "meter": "m",
    "micron": "um",
    "unknown": "mm",
}  # NIfTI files without a unit are in mm by convention


@dataclass(frozen=True)
class PixelGeometry:
    """Positions of pixels in space.

    Attributes:
        matrix: (2, 2), its columns are the steps of one pixel to the right and one down, with the y axis up.
        unit: of length, such as "mm", "m" or "degree".
        origin: map coordinates of the upper left corner of the image; None if the image is on no map.
    """

    matrix: NDArray[np.float64]
    unit: str
    origin: NDArray[np.float64] | None = None

    def to_map(self, x: float, y: float) -> tuple[float, float] | None:
        """Returns the map coordinates of a point in pixels; None if the image is on no map."""
        if self.origin is None:
            return None
        mapped = self.matrix @ (x, y) + self.origin
        return float(mapped[0]), float(mapped[1])


def pixel_geometry(record: dict[str, Any]) -> PixelGeometry | None:
    """Returns the geometry of the image of a record (see :func:`maskrcnn_ext.data.images.pixels.read_pixels`); None if it is unknown.

    Raises:
        InputError: the header of a medical image cannot be read.

    Example:
        >>> pixel_geometry({"file_name": "photo.jpg"}) is None
        True
    """
    name = str(record["file_name"])
    suffix = PurePath(name).suffix.lower()
    try:
        if suffix in (".tif", ".tiff"):
            return _of_raster(name, record) if find_spec("rasterio") else None
        if suffix in (".nii", ".gz"):
            return _of_nifti(name, record)
        return _of_dicom(name) if suffix in (".dcm", ".dicom") or is_dicom(name) else None
    except InputError:
        raise
    except Exception as error:  # parsers raise errors of many types for broken files
        raise InputError(f"{name}: the size of its pixels cannot be read ({one_line(error):.200})") from error


def _of_raster(name: str, record: dict[str, Any]) -> PixelGeometry | None:
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(name) as source:
            crs, (a, b, c, d, e, f) = source.crs, tuple(source.transform)[:6]
    if crs is None:
        return None
    matrix = np.array([[a, b], [d, e]])
    unit = "degree" if crs.is_geographic else str(crs.linear_units)
    x, y = record.get("window", (0, 0))[:2]
    return PixelGeometry(matrix, _UNITS.get(unit, unit), matrix @ (x, y) + (c, f))


def _of_nifti(name: str, record: dict[str, Any]) -> PixelGeometry:
    nibabel = require("nibabel", extra="medical", purpose=f"{name}: reading it")
    header = nibabel.load(name).header
    x, y = (float(zoom) for axis, zoom in enumerate(header.get_zooms()[:3]) if axis != record.get("axis", 2))
    unit = header.get_xyzt_units()[0]
    return PixelGeometry(np.diag([x, -y]), _UNITS.get(unit, unit))


def _of_dicom(name: str) -> PixelGeometry | None:
    pydicom = require("pydicom", extra="medical", purpose=f"{name}: reading it")
    data = pydicom.dcmread(name, stop_before_pixels=True)
    shared = (data.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    measures = (shared.get("PixelMeasuresSequence") or [data])[0]
    spacing = measures.get("PixelSpacing") or data.get("ImagerPixelSpacing")
    if not spacing:
        return None
    rows, columns = (float(value) for value in spacing)  # the distances of rows and of columns
    return PixelGeometry(np.diag([columns, -rows]), "mm")
