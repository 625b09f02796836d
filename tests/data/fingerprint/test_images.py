"""Headers and pixels of images of all kinds, and of files that cannot be read."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn_ext.data.fingerprint.images import _few_of_each_file, measure_images
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.errors import InputError
from tests.helpers.labelled_images import noise, write_data


def measured(folder, *images):
    return measure_images(load_dataset(write_data(folder / "data", images, [])).images)


def test_photographs_grey_and_colour(tmp_path):
    found = measured(tmp_path, ("a.png", noise(20, 30, 3)), ("b.png", noise(40, 30)), ("c.png", noise(20, 30, 4)))
    assert (found.image_format, found.channels, found.dtype) == ("BGR", 3, "uint8")
    assert found.sizes.tolist() == [[30, 20], [30, 40], [30, 20]]
    assert (found.short, found.long) == (20, 30)
    assert found.are_photos
    assert found.unreadable == ()


def test_transparency_is_no_channel_of_a_photograph(tmp_path):
    """Two channels are grey and transparency; in a TIFF or an array, they are bands."""
    grey = np.stack([noise(20, 30), noise(20, 30)], axis=2)
    found = measured(tmp_path, ("a.png", noise(20, 30, 3)), ("b.png", noise(20, 30, 4)), ("c.png", grey))
    assert (found.image_format, found.channels) == ("BGR", 3)
    bands = write_data(tmp_path / "bands", [("a.npy", grey)], [])
    found = measure_images(load_dataset(bands).images)
    assert (found.image_format, found.channels) == ("raw", 2)


def test_a_size_before_the_exif_rotation_is_explained(tmp_path):
    record = load_dataset(
        write_data(tmp_path / "data", [("a.png", noise(20, 30, 3)), ("b.png", noise(9, 9, 3))], [])
    ).images
    found = measure_images([replace(record[0], height=30, width=20), record[1]])
    assert (
        "30 x 20 pixels, its record says 20 x 30, as before the rotation in its EXIF data; maskrcnn-ext check-data --fix"
        in found.unreadable[0]
    )


def test_sixteen_bits_keep_their_one_channel(tmp_path):
    pixels = noise(20, 30, dtype=np.uint16)
    found = measured(tmp_path, ("a.png", pixels))
    assert (found.image_format, found.channels, found.dtype) == ("raw", 1, "uint16")
    assert found.mean == pytest.approx([pixels.mean()])
    assert found.std == pytest.approx([pixels.std()])


def test_types_that_differ_are_named(tmp_path):
    found = measured(tmp_path, ("a.png", noise(20, 30, dtype=np.uint16)), ("b.png", noise(20, 30)))
    assert found.dtype == "uint16 and uint8"


def test_five_channels(tmp_path):
    found = measured(tmp_path, ("a.npy", noise(20, 30, 5)))
    assert (found.image_format, found.channels) == ("raw", 5)
    assert not found.are_photos


def test_unreadable_files_are_listed_and_the_rest_is_measured(tmp_path):
    records = load_dataset(
        write_data(tmp_path / "data", [("a.png", noise(20, 30, 3)), ("b.png", b"no image"), ("c.png", noise(9, 9))], [])
    ).images
    records[2] = replace(records[2], height=10)
    gone = replace(records[0], file_name="gone.png", image_id=9)
    found = measure_images([*records, gone])
    assert found.unreadable_ids == (2, 3, 9)
    assert "b.png" in found.unreadable[0]
    assert "9 x 9 pixels, its record says 9 x 10" in found.unreadable[1]
    assert "gone.png" in found.unreadable[2]
    assert len(found.sizes) == 4


def test_only_unreadable_files_mixed_channels_and_no_images_are_errors(tmp_path):
    with pytest.raises(InputError, match="none of 1 image can be read"):
        measured(tmp_path, ("a.png", b"no image"))
    mixed = write_data(tmp_path / "mixed", [("a.npy", noise(8, 8, 5)), ("b.npy", noise(8, 8, 6))], [])
    with pytest.raises(InputError, match="differ in their number of channels"):
        measure_images(load_dataset(mixed).images)
    with pytest.raises(InputError, match="no images"):
        measure_images([])


def test_few_tiles_of_a_photograph_are_read(tmp_path):
    """Each tile decodes the whole file; an array is read by windows, so all its tiles may be."""
    for suffix in (".png", ".npy"):
        files = [(f"{n}{suffix}", noise(8, 8, 3)) for n in range(2)]
        one, other = load_dataset(write_data(tmp_path / suffix[1:], files, [])).images
        records = [*(replace(one, image_id=n, extra={"window": [0, 0, 8, 8]}) for n in range(26)), other]
        expected = [records[6], records[19], other] if suffix == ".png" else records
        assert _few_of_each_file(records) == expected
