"""Pixels of every kind of file: as Detectron2 reads photographs, every value of the rest, and broken files named."""

import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images import MAX_VALUES
from maskrcnn_ext.data.images.pixels import read_pixels

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 32, 3), dtype=np.uint16)


def read(path, image_format="raw", **record):
    return read_pixels({"file_name": str(path), **record}, image_format)


@pytest.fixture
def save(tmp_path):
    def save(image, name, **options):
        path = tmp_path / name
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
        return path

    return save


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("RGB", "a.png", {}),
        ("RGB", "a.jpg", {"quality": 90}),
        ("RGB", "a.tif", {}),
        ("RGB", "a.tiff", {"compression": "tiff_lzw"}),
        ("L", "a.png", {}),
        ("RGBA", "a.png", {}),
        ("P", "a.png", {}),
        ("1", "a.png", {}),
        ("CMYK", "a.jpg", {}),
    ],
)
def test_photographs_are_bit_for_bit_what_detectron2_reads(save, mode, name, options, image_format):
    path = save(Image.fromarray(PHOTO).convert(mode), name, **options)
    ours, theirs = read(path, image_format), read_image(str(path), image_format)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_in_every_format(save, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(PHOTO, "a.jpg", exif=exif)
    np.testing.assert_array_equal(read(path, "BGR"), read_image(str(path), "BGR"))
    np.testing.assert_array_equal(read(path, "raw"), read_image(str(path), "RGB"))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("1", 1), ("P", 3)])
def test_raw_keeps_the_channels_of_8_bits(save, mode, channels):
    stored = Image.fromarray(PHOTO).convert(mode)
    image = read(save(stored, "a.png"))
    assert image.shape == (40, 60, channels)
    expected = {"P": stored.convert("RGB"), "1": stored.convert("L")}.get(mode, stored)
    np.testing.assert_array_equal(image.squeeze(), np.asarray(expected))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_every_value(save, name):
    values = np.arange(4001, dtype=np.uint16).reshape(1, 4001)
    path = save(values, name)
    assert len(np.unique(read_image(str(path), "BGR"))) == 256, "the stock reader clips at 255"
    for image_format in ("raw", "L", "BGR"):
        image = read(path, image_format)
        assert image.dtype == np.uint16
        assert len(np.unique(image)) == 4001
        np.testing.assert_array_equal(image, np.broadcast_to(values[:, :, None], image.shape))
    assert image.shape == (1, 4001, 3)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_of_a_png(tmp_path, channels):
    stored = RNG.integers(0, 65536, (24, 32, channels), dtype=np.uint16)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), stored)  # OpenCV takes B, G, R(, A)
    raw = read(path)
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw[:, :, :3], stored[:, :, 2::-1])
    if channels == 3:
        np.testing.assert_array_equal(read(path, "BGR"), stored)
    else:
        np.testing.assert_array_equal(raw[:, :, 3], stored[:, :, 3])
        with pytest.raises(InputError, match=r"has 4 channels of uint16, .*image_format=raw"):
            read(path, "BGR")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("layout", ["last", "first", "last, meant", "first, meant", "planar"])
def test_tiff_of_five_channels(tmp_path, dtype, layout):
    tifffile = pytest.importorskip("tifffile")
    stored = (RNG.random((30, 20, 5)) * 250).astype(dtype)
    path = tmp_path / "a.tif"
    first = np.ascontiguousarray(np.moveaxis(stored, 2, 0))
    array, options = {
        "last": (stored, {}),
        "first": (first, {}),
        "last, meant": (stored, {"photometric": "minisblack", "planarconfig": "contig"}),
        "first, meant": (first, {"metadata": {"axes": "CYX"}, "ome": True}),
        "planar": (first, {"photometric": "minisblack", "planarconfig": "separate"}),
    }[layout]
    tifffile.imwrite(path, array, **options)
    image = read(path, height=30, width=20)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, stored)
    with pytest.raises(InputError, match="has 5 channels"):
        read(path, "RGB")


def test_big_endian_and_wide_types_keep_their_values(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", DEEP[:, :, 0], byteorder=">")
    image = read(tmp_path / "a.tif")
    assert image.dtype == np.uint16
    assert image.dtype.isnative
    np.testing.assert_array_equal(image[:, :, 0], DEEP[:, :, 0])
    for dtype in (np.int32, np.float64, np.float16, np.uint32):
        np.save(tmp_path / "a.npy", np.array([[0, 1000], [2000, 2048]], dtype))
        image = read(tmp_path / "a.npy")
        assert image.dtype == np.float32
        assert image.ravel().tolist() == [0, 1000, 2000, 2048]
    np.save(tmp_path / "a.npy", np.array([[True, False]]))
    assert read(tmp_path / "a.npy").dtype == np.uint8


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
        read(tmp_path / "a.npy")


def test_stacks_give_the_slice_of_the_record(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    stack = RNG.integers(0, 65536, (7, 12, 16), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "pages.tif", stack)
    tifffile.imwrite(tmp_path / "depth.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    np.save(tmp_path / "a.npy", stack)
    for name in ("pages.tif", "depth.tif", "a.npy"):
        np.testing.assert_array_equal(read(tmp_path / name, slice=5)[:, :, 0], stack[5])
        with pytest.raises(InputError, match=r"`slice` is 7, expected a number from 0 to 6"):
            read(tmp_path / name, slice=7)
    with pytest.raises(InputError, match=r"depth\.tif: a stack of 7 images: its record needs `slice`"):
        read(tmp_path / "depth.tif")
    tifffile.imwrite(tmp_path / "flat.tif", stack[0])
    with pytest.raises(InputError, match="the file is one image"):
        read(tmp_path / "flat.tif", slice=0)


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.png", "a.jpg"])
def test_a_window_is_that_part_of_the_whole(tmp_path, save, name):
    if name == "a.tif":
        pytest.importorskip("rasterio")
    if name == "a.npy":
        np.save(tmp_path / name, PHOTO)
    else:
        save(PHOTO, name)
    whole = read(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = read(tmp_path / name, window=[10, 5, 30, 20])
    np.testing.assert_array_equal(part, whole[5:25, 10:40])
    np.testing.assert_array_equal(read(tmp_path / name, "BGR", window=[10, 5, 30, 20]), part[:, :, ::-1])
    for window in ([40, 5, 30, 20], [-1, 0, 5, 5], [0, 0, 0, 5]):
        with pytest.raises(InputError, match=r"is not inside its 60 x 40 pixels"):
            read(tmp_path / name, window=window)
    with pytest.raises(InputError, match=r"expected \[x, y, width, height\]"):
        read(tmp_path / name, window=[1, 2, 3])


def test_a_window_of_a_raster_with_transparency_is_three_colours(save):
    pixels = RNG.integers(0, 256, (40, 60, 4), dtype=np.uint8)
    path = save(pixels, "a.tif")
    np.testing.assert_array_equal(read(path, "RGB", window=[10, 5, 30, 20]), pixels[5:25, 10:40, :3])
    np.testing.assert_array_equal(read(path, window=[10, 5, 30, 20]), pixels[5:25, 10:40])


def test_level_spreads_a_window_of_values(tmp_path):
    values = np.array([[-1000, -150, 50, 250, 1000]], np.int16)
    np.save(tmp_path / "a.npy", values)
    image = read(tmp_path / "a.npy", "BGR", level=[50, 400])
    assert image.dtype == np.uint8
    assert image[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert image.shape == (1, 5, 3)
    for level in ("abc", [1], [50, 0], [50, float("nan")]):
        with pytest.raises(InputError, match="level"):
            read(tmp_path / "a.npy", level=level)


def test_dicom_is_in_hounsfield_units(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "scan.dcm"
    stored = write_dicom(pydicom, path)
    image = read(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[:, :, 0], stored * 2.0 - 1024)
    (tmp_path / "IM0001").write_bytes(path.read_bytes())  # as scanners name them
    np.testing.assert_array_equal(read(tmp_path / "IM0001"), image)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"scan\.dcm: cannot be read"):
        read(path)


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
        image = read(path, slice=4, axis=axis)
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image[:, :, 0], volume.take(4, axis=axis).T)
    np.testing.assert_array_equal(read(path, slice=9)[:, :, 0], volume[:, :, 9].T)
    with pytest.raises(InputError, match=r"its record needs `slice`, from 0 to 9"):
        read(path)
    sequences = RNG.random((6, 8, 10, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(sequences, np.eye(4)), path)
    np.testing.assert_array_equal(read(path, slice=3), sequences[:, :, 3].swapaxes(0, 1))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot be read"):
        read(path, slice=9)


def broken_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_gigantic_images_are_refused_by_their_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(broken_png(50000, 50000))
    with pytest.raises(InputError, match=r"bomb\.png: .*2500000000 pixels.*tiles"):
        read(tmp_path / "bomb.png", "BGR")
    side = int(MAX_VALUES**0.5) + 1
    array = np.lib.format.open_memmap(
        tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(side, side)
    )  # a sparse file
    del array
    with pytest.raises(InputError, match=rf"{side} x {side} values are more than the {MAX_VALUES}"):
        read(tmp_path / "a.npy")
    assert read(tmp_path / "a.npy", window=[side - 10, 0, 10, 4]).shape == (4, 10, 1)


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
    whole = read(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path), whole)


def test_files_that_are_not_there_or_no_images(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        read(tmp_path / "gone.png")
    for name in ("a.png", "a.tif", "a.npy", "a.jpg", "a.dcm", "a.nii", "a.nii.gz", "a.xyz", "plain"):
        (tmp_path / name).write_bytes(b"these are no pixels" * 20)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read(tmp_path / name, slice=0)


def test_a_missing_library_is_named_with_its_extra(tmp_path, run_python):
    code = (
        "import sys\nfor name in ('tifffile', 'rasterio', 'pydicom', 'nibabel'): sys.modules[name] = None\n"
        "from maskrcnn_ext import InputError\nfrom maskrcnn_ext.data.images.pixels import read_pixels\n"
        "for record in ({'file_name': 'a.tif'}, {'file_name': 'a.tif', 'window': [0, 0, 1, 1]}, {'file_name': 'a.dcm'}, "
        "{'file_name': 'a.nii'}):\n"
        "    try: read_pixels(record, 'raw')\n    except InputError as error: print(error)\n"
    )
    for name in ("a.tif", "a.dcm", "a.nii"):
        (tmp_path / name).write_bytes(b"II*\0")
    lines = run_python("-c", code).stdout.splitlines()
    assert [line.split("pip install ")[1] for line in lines] == [
        f'"maskrcnn_ext[{extra}]"' for extra in ("tiff", "geo", "medical", "medical")
    ]


@pytest.mark.realdata
def test_real_scientific_images(real_data):
    for module in ("rasterio", "tifffile", "pydicom", "nibabel"):
        pytest.importorskip(module)
    scene = real_data / "aerial_spacenet/sample_geotiff.tif"
    whole = read(scene)
    assert (whole.shape, whole.dtype) == ((900, 900, 1), np.uint16)
    np.testing.assert_array_equal(read(scene, window=[100, 200, 300, 250]), whole[200:450, 100:400])
    scan = read(real_data / "medical_ct_dicom/ct-3slice/03.dcm")
    assert -1024 <= np.median(scan) <= 100, "between air and soft tissue, in Hounsfield units"
    volume = real_data / "medical_spine_nifti/sample_ct/sub-ct_label-22_ct.nii.gz"
    picture = next((real_data / "medical_spine_nifti/slices").glob("*ct*40.png"))  # made independently, 4 x larger
    slices = read(volume, slice=40, level=[350, 1100])[:, :, 0]
    theirs = np.asarray(Image.open(picture).convert("L").resize(slices.shape[::-1], Image.Resampling.BOX))
    assert np.corrcoef(slices.ravel(), theirs.ravel())[0, 1] > 0.95
