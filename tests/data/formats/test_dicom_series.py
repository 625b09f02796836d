"""DICOM series: the choice of a series, slices that do not fit, and damaged or truncated headers."""

import shutil

import pydicom
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.dicom_series import plane_of, read_header, read_series
from tests.helpers.dicom_files import (
    SAGITTAL,
    SLICES,
    overlapping_frames,
    position,
    write_seg,
    write_series,
)


def test_one_of_several_series_is_chosen(tmp_path):
    folder = write_series(tmp_path / "ct")
    other = write_series(tmp_path / "other", uid="4.5", slices=2)
    for path in other.iterdir():
        shutil.copy(path, folder / f"scout_{path.name}")
    with pytest.raises(InputError, match=r"several series; choose one by `series_uid`: 1\.2\.3 \(4 images\), 4\.5 \(2"):
        read_series(folder)
    assert [one.uid for one in read_series(folder, "1.2.3").slices] == [f"1.2.3.{index}" for index in range(SLICES)]
    with pytest.raises(InputError, match=r"no series 6\.6; choose"):
        read_series(folder, "6.6")


def test_files_that_are_not_images_are_skipped(tmp_path):
    folder = write_series(tmp_path / "ct")
    (folder / "README").write_text("text")
    write_seg(folder / "seg.dcm", overlapping_frames(), ["a", "b"])
    assert len(read_series(folder).slices) == SLICES


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (
            2,
            {"ImagePositionPatient": position(1)},
            r"02\.dcm: has the position of 03\.dcm|03\.dcm: has the position of",
        ),
        (1, {"PixelSpacing": [0.5, 0.5]}, r"PixelSpacing is \[0\.5, 0\.5\], but \[0\.5, 0\.8\] in 01\.dcm"),
        (1, {"ImageOrientationPatient": SAGITTAL}, "ImageOrientationPatient is"),
        (1, {"ImagePositionPatient": None}, r"03\.dcm: has no ImagePositionPatient"),
        (3, {"PixelSpacing": None}, r"01\.dcm: has no PixelSpacing"),
        (0, {"NumberOfFrames": 3}, r"04\.dcm: has 3 frames"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(tmp_path, index, changes, message):
    folder = write_series(tmp_path / "ct")
    file = folder / f"{SLICES - index:02d}.dcm"
    image = pydicom.dcmread(file)
    for name, value in changes.items():
        setattr(image, name, value)
    image.save_as(file)
    with pytest.raises(InputError, match=message):
        read_series(folder)


def test_a_level_without_width_is_ignored(tmp_path):
    series = write_series(tmp_path / "ct", WindowCenter=0, WindowWidth=0)
    assert read_series(series).slices[0].level is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"-100.0", b"-1x0.0", "ImagePositionPatient is damaged"),
        (b"0.5\\0.8 ", b"0.5     ", r"PixelSpacing is .*but|PixelSpacing is .*expected 2 numbers"),
        (b"0.5\\0.8", b"nan\\0.8", "PixelSpacing is .*expected numbers"),
        (b"40.0\\500.0", b"4?.0\\500.0", "WindowCenter is damaged"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", "truncated or damaged"),
    ],
)
def test_a_damaged_field_is_named(tmp_path, old, new, message):
    folder = write_series(tmp_path / "ct")
    content = (folder / "02.dcm").read_bytes()
    assert old in content
    (folder / "02.dcm").write_bytes(content.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"0[24]\.dcm: .*{message}|{message}") as caught:
        read_series(folder)
    assert "\n" not in str(caught.value)


def test_a_file_of_many_frames_is_named_before_its_missing_fields(tmp_path):
    """In an enhanced CT, position and orientation are in sequences."""
    folder = write_series(tmp_path / "ct", NumberOfFrames=7, ImageOrientationPatient=None, slices=1)
    with pytest.raises(InputError, match=r"01\.dcm: has 7 frames, expected one file a slice"):
        read_series(folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_truncated_slice_is_named(tmp_path, share):
    folder = write_series(tmp_path / "ct")
    content = (folder / "02.dcm").read_bytes()
    (folder / "02.dcm").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"02\.dcm: "):
        read_series(folder)


def test_a_file_of_another_format_has_no_header(tmp_path):
    (tmp_path / "README").write_text("text " * 100)
    assert read_header(tmp_path / "README", strict=False) is None
    with pytest.raises(InputError, match="README: not a DICOM file"):
        read_header(tmp_path / "README")


def test_a_plane_maps_pixels_to_the_patient():
    """Sagittal: columns run to the back (y), rows down (-z); the spacing of rows comes first."""
    plane = plane_of([-100, -90, 40], SAGITTAL, [0.5, 0.8])
    column, row = 3, 2
    assert (plane @ [column, row, 1]).tolist() == pytest.approx([-100, -90 + 3 * 0.8, 40 - 2 * 0.5])
