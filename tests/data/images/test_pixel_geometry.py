"""The size of pixels in DICOM, NIfTI and GeoTIFF files."""

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.pixel_geometry import pixel_geometry
from tests.helpers.dicom_files import SPACING, write_series


def test_dicom_spacing_is_of_rows_and_then_of_columns(tmp_path):
    write_series(tmp_path / "ct", slices=1)
    (file,) = (tmp_path / "ct").iterdir()
    found = pixel_geometry({"file_name": str(file)})
    np.testing.assert_array_equal(found.matrix, [[SPACING[1], 0], [0, -SPACING[0]]])
    assert (found.unit, found.to_map(1, 2)) == ("mm", None)


@pytest.mark.parametrize(("axis", "expected"), [(0, (0.75, 3)), (1, (0.5, 3)), (2, (0.5, 0.75))])
def test_nifti_zooms_are_those_of_the_two_other_axes(tmp_path, axis, expected):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([0.5, 0.75, 3, 1]))
    nibabel.save(image, tmp_path / "a.nii.gz")
    found = pixel_geometry({"file_name": str(tmp_path / "a.nii.gz"), "slice": 0, "axis": axis})
    np.testing.assert_allclose(found.matrix, [[expected[0], 0], [0, -expected[1]]])
    assert found.unit == "mm"
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert pixel_geometry({"file_name": str(tmp_path / "a.nii.gz")}).unit == "um"


def test_a_raster_has_its_transform_and_a_window_its_own_origin(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    grid = rasterio.Affine(0.3, 0.1, 1000, 0.2, -0.4, 8000)
    profile = {"driver": "GTiff", "height": 8, "width": 9, "count": 1, "dtype": "uint8", "transform": grid}
    for name, crs in (("utm", "EPSG:32633"), ("feet", "EPSG:2263"), ("degrees", "EPSG:4326"), ("none", None)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile, crs=crs) as raster:
            raster.write(np.zeros((8, 9), np.uint8), 1)
    found = pixel_geometry({"file_name": str(tmp_path / "utm.tif"), "window": [2, 3, 4, 4]})
    assert found.unit == "m"
    assert found.to_map(0.5, 1.5) == pytest.approx(
        grid @ (2.5, 4.5) if hasattr(grid, "__matmul__") else grid * (2.5, 4.5)
    )
    assert pixel_geometry({"file_name": str(tmp_path / "degrees.tif")}).unit == "degree"
    assert "foot" in pixel_geometry({"file_name": str(tmp_path / "feet.tif")}).unit
    assert pixel_geometry({"file_name": str(tmp_path / "none.tif")}) is None


def test_broken_files_are_named(tmp_path):
    for name in ("a.tif", "a.nii", "a.dcm"):
        (tmp_path / name).write_bytes(b"x" * 500)
        with pytest.raises(InputError, match=f"{name}: the size of its pixels cannot be read"):
            pixel_geometry({"file_name": str(tmp_path / name)})
