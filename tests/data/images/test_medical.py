"""DICOM images in Hounsfield units, and slices of NIfTI volumes along each axis."""

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.medical import is_dicom
from tests.helpers.image_files import RNG, read_file


def test_dicom_is_in_hounsfield_units(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "scan.dcm"
    stored = write_dicom(pydicom, path)
    image = read_file(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[:, :, 0], stored * 2.0 - 1024)
    (tmp_path / "IM0001").write_bytes(path.read_bytes())  # as scanners name them
    np.testing.assert_array_equal(read_file(tmp_path / "IM0001"), image)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"scan\.dcm: cannot be read"):
        read_file(path)


def write_dicom(pydicom, path):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    stored = RNG.integers(0, 4096, (16, 20), dtype=np.uint16)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = "2", "-1024"
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)
    return stored.astype(np.float64)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_gives_the_slice_along_an_axis(tmp_path, name):
    nibabel = pytest.importorskip("nibabel")
    volume = RNG.integers(-1000, 1000, (6, 8, 10), dtype=np.int16)
    path = tmp_path / name
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    for axis in range(3):
        image = read_file(path, slice=4, axis=axis)
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image[:, :, 0], volume.take(4, axis=axis).T)
    np.testing.assert_array_equal(read_file(path, slice=9)[:, :, 0], volume[:, :, 9].T)
    with pytest.raises(InputError, match=r"its record needs `slice`, from 0 to 9"):
        read_file(path)
    sequences = RNG.random((6, 8, 10, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(sequences, np.eye(4)), path)
    np.testing.assert_array_equal(read_file(path, slice=3), sequences[:, :, 3].swapaxes(0, 1))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot be read"):
        read_file(path, slice=9)


def test_a_file_without_a_suffix_is_known_by_its_preamble(tmp_path):
    for name, content, expected in (
        ("IM0001", bytes(128) + b"DICM" + bytes(9), True),
        ("IM0002", bytes(200), False),
        ("IM0003", b"", False),
        ("a.png", bytes(128) + b"DICM", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_dicom(str(tmp_path / name)) == expected


@pytest.mark.parametrize(("shape", "axis"), [((6, 8), 0), ((6, 8, 10), 3), ((6, 8, 10, 2, 2), 0)])
def test_a_volume_of_other_axes_is_an_error(tmp_path, shape, axis):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match=rf"a NIfTI volume of shape .*, `axis` {axis}; expected three or four axes"):
        read_file(tmp_path / "a.nii", slice=0, axis=axis)
