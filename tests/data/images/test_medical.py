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


def rescale(slope, intercept):
    from pydicom.dataset import Dataset

    groups, values = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = str(slope), str(intercept), "HU"
    groups.PixelValueTransformationSequence = [values]
    return groups


@pytest.mark.parametrize("where", ["frames", "shared", "file"])
def test_frames_have_their_own_units_else_shared_ones(tmp_path, where):
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "scan.dcm"
    stored = write_dicom(pydicom, path)
    data = pydicom.dcmread(path)
    data.NumberOfFrames, data.PixelData = 2, data.PixelData * 2
    expected = [(2, -1024)] * 2
    if where != "file":
        data.SharedFunctionalGroupsSequence = [rescale(1, -1000)]
        expected = [(1, -1000)] * 2
    if where == "frames":
        data.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
        data.PerFrameFunctionalGroupsSequence = [rescale(3, -7), rescale(0.5, 9)]
        expected = [(3, -7), (0.5, 9)]
    data.save_as(path)
    for index, (slope, intercept) in enumerate(expected):
        np.testing.assert_array_equal(read_file(path, slice=index)[:, :, 0], stored * slope + intercept)


@pytest.mark.parametrize("first", [-10, 0, 1000])
def test_a_lookup_table_maps_to_the_units_of_the_modality(tmp_path, first):
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "scan.dcm"
    stored = write_dicom(pydicom, path)
    data = pydicom.dcmread(path)
    del data.RescaleSlope, data.RescaleIntercept
    entries = np.linspace(0, 60000, 3000).astype(np.uint16)
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, 16])
    table.add_new("LUTData", "OW", entries.tobytes())
    data.ModalityLUTSequence = [table]
    data.save_as(path)
    expected = entries[(stored - first).clip(0, len(entries) - 1).astype(int)]
    np.testing.assert_array_equal(read_file(path)[:, :, 0], expected)


def test_the_colours_of_a_palette_are_resolved(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "scan.dcm"
    write_dicom(pydicom, path)
    data = pydicom.dcmread(path)
    del data.RescaleSlope, data.RescaleIntercept
    data.PhotometricInterpretation = "PALETTE COLOR"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    numbers = RNG.integers(0, 256, (16, 20), dtype=np.uint8)
    data.PixelData = numbers.tobytes()
    colours = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    for index, name in enumerate(("Red", "Green", "Blue")):
        data.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
        data.add_new(f"{name}PaletteColorLookupTableData", "OW", colours[:, index].tobytes())
    data.save_as(path)
    np.testing.assert_array_equal(read_file(path), colours[numbers])


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


def test_a_file_without_a_suffix_is_recognised_by_its_preamble(tmp_path):
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
