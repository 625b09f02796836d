"""The reader of pixels for all kinds of files: types, windows, stacks, and errors that name broken files."""

import struct
import sys
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images import MAX_VALUES
from tests.helpers.image_files import DEEP, PHOTO, RNG, read_file


def test_big_endian_and_wide_types_keep_their_values(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", DEEP[:, :, 0], byteorder=">")
    image = read_file(tmp_path / "a.tif")
    assert image.dtype == np.uint16
    assert image.dtype.isnative
    np.testing.assert_array_equal(image[:, :, 0], DEEP[:, :, 0])
    for dtype in (np.int32, np.float64, np.float16, np.uint32):
        np.save(tmp_path / "a.npy", np.array([[0, 1000], [2000, 2048]], dtype))
        image = read_file(tmp_path / "a.npy")
        assert image.dtype == np.float32
        assert image.ravel().tolist() == [0, 1000, 2000, 2048]
    np.save(tmp_path / "a.npy", np.array([[True, False]]))
    assert read_file(tmp_path / "a.npy").dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[2**24 + 1]]), r"values up to 16777217 lose digits in float32"),
        (np.array([[np.nan]], np.float32), r"NaN or infinite"),
        (np.array([[1j]]), r"pixels of type complex128"),
        (np.zeros((3, 0)), r"has no pixels"),
        (np.zeros((2, 3, 4, 5)), r"shape \(2, 3, 4, 5\); expected"),
        (np.array([[{}]], dtype=object), r"cannot be read"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=rf"a\.npy: .*{message}"):
        read_file(tmp_path / "a.npy")


def test_stacks_give_the_slice_of_the_record(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    stack = RNG.integers(0, 65536, (7, 12, 16), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "pages.tif", stack)
    tifffile.imwrite(tmp_path / "depth.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    np.save(tmp_path / "a.npy", stack)
    for name in ("pages.tif", "depth.tif", "a.npy"):
        np.testing.assert_array_equal(read_file(tmp_path / name, slice=5)[:, :, 0], stack[5])
        with pytest.raises(InputError, match=r"`slice` is 7, expected a number from 0 to 6"):
            read_file(tmp_path / name, slice=7)
    with pytest.raises(InputError, match=r"depth\.tif: a stack of 7 images: its record needs `slice`"):
        read_file(tmp_path / "depth.tif")
    tifffile.imwrite(tmp_path / "flat.tif", stack[0])
    with pytest.raises(InputError, match="the file is one image"):
        read_file(tmp_path / "flat.tif", slice=0)


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.png", "a.jpg"])
def test_a_window_is_that_part_of_the_whole(tmp_path, save, name):
    if name == "a.tif":
        pytest.importorskip("rasterio")
    if name == "a.npy":
        np.save(tmp_path / name, PHOTO)
    else:
        save(PHOTO, name)
    whole = read_file(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = read_file(tmp_path / name, window=[10, 5, 30, 20])
    np.testing.assert_array_equal(part, whole[5:25, 10:40])
    np.testing.assert_array_equal(read_file(tmp_path / name, "BGR", window=[10, 5, 30, 20]), part[:, :, ::-1])
    for window in ([40, 5, 30, 20], [-1, 0, 5, 5], [0, 0, 0, 5]):
        with pytest.raises(InputError, match=r"is not inside its 60 x 40 pixels"):
            read_file(tmp_path / name, window=window)
    with pytest.raises(InputError, match=r"expected \[x, y, width, height\]"):
        read_file(tmp_path / name, window=[1, 2, 3])


def test_level_spreads_a_window_of_values(tmp_path):
    values = np.array([[-1000, -150, 50, 250, 1000]], np.int16)
    np.save(tmp_path / "a.npy", values)
    image = read_file(tmp_path / "a.npy", "BGR", level=[50, 400])
    assert image.dtype == np.uint8
    assert image[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert image.shape == (1, 5, 3)
    for level in ("abc", [1], [50, 0], [50, float("nan")]):
        with pytest.raises(InputError, match="level"):
            read_file(tmp_path / "a.npy", level=level)


def broken_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_gigantic_images_are_refused_by_their_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(broken_png(50000, 50000))
    with pytest.raises(InputError, match=r"bomb\.png: 50000 x 50000 pixels are too many .*tiles"):
        read_file(tmp_path / "bomb.png", "BGR")
    side = int(MAX_VALUES**0.5) + 1
    array = np.lib.format.open_memmap(
        tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(side, side)
    )  # a sparse file
    del array
    with pytest.raises(InputError, match=rf"{side} x {side} values are more than the {MAX_VALUES}"):
        read_file(tmp_path / "a.npy")
    assert read_file(tmp_path / "a.npy", window=[side - 10, 0, 10, 4]).shape == (4, 10, 1)


WRITERS = {
    "8.png": lambda path: Image.fromarray(PHOTO).save(path),
    "8.jpg": lambda path: Image.fromarray(PHOTO).save(path),
    "8.tif": lambda path: Image.fromarray(PHOTO).save(path),
    "grey.png": lambda path: Image.fromarray(DEEP[:, :, 0]).save(path),
    "colour.png": lambda path: cv2.imwrite(str(path), DEEP),
    "strips.tif": lambda path: tiff(path, DEEP, photometric="rgb", rowsperstrip=4),
    "deflate.tif": lambda path: tiff(path, DEEP, photometric="rgb", compression="zlib"),
    "tiles.tif": lambda path: tiff(path, DEEP, photometric="rgb", tile=(16, 16)),
    "a.npy": lambda path: np.save(path, DEEP),
}


def tiff(path, image, **options):
    pytest.importorskip("tifffile").imwrite(path, image, **options)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", WRITERS)
def test_truncated_files_are_named_never_half_read(tmp_path, name, share):
    path = tmp_path / name
    WRITERS[name](path)
    whole = read_file(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError) as caught:
        read_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_file(path), whole)


def test_missing_files_and_files_that_are_not_images_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        read_file(tmp_path / "gone.png")
    for name in ("a.png", "a.tif", "a.npy", "a.jpg", "a.dcm", "a.nii", "a.nii.gz", "a.xyz", "plain"):
        (tmp_path / name).write_bytes(b"these are no pixels" * 20)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_file(tmp_path / name, slice=0)


@pytest.mark.parametrize(
    ("file", "window", "extra"),
    [("a.tif", None, "tiff"), ("a.tif", [0, 0, 1, 1], "geo"), ("a.dcm", None, "medical"), ("a.nii", None, "medical")],
)
def test_a_missing_library_is_named_with_its_extra(file, window, extra, tmp_path, monkeypatch):
    for name in ("tifffile", "rasterio", "pydicom", "nibabel"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / file).write_bytes(b"II*\0")
    with pytest.raises(InputError, match=rf'pip install "maskrcnn_ext\[{extra}\]"$'):
        read_file(tmp_path / file, **({"window": window} if window else {}))


@pytest.mark.realdata
def test_real_scientific_images(real_data):
    for module in ("rasterio", "tifffile", "pydicom", "nibabel"):
        pytest.importorskip(module)
    scene = real_data / "aerial_spacenet/sample_geotiff.tif"
    whole = read_file(scene)
    assert (whole.shape, whole.dtype) == ((900, 900, 1), np.uint16)
    np.testing.assert_array_equal(read_file(scene, window=[100, 200, 300, 250]), whole[200:450, 100:400])
    scan = read_file(real_data / "medical_ct_dicom/ct-3slice/03.dcm")
    assert -1024 <= np.median(scan) <= 100, "between air and soft tissue, in Hounsfield units"
    volume = real_data / "medical_spine_nifti/sample_ct/sub-ct_label-22_ct.nii.gz"
    picture = next((real_data / "medical_spine_nifti/slices").glob("*ct*40.png"))  # made independently, 4 x larger
    slices = read_file(volume, slice=40, level=[350, 1100])[:, :, 0]
    theirs = np.asarray(Image.open(picture).convert("L").resize(slices.shape[::-1], Image.Resampling.BOX))
    assert np.corrcoef(slices.ravel(), theirs.ravel())[0, 1] > 0.95
