"""Image files are decoded to their end; 16-bit images keep their range."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext.data.check import read_images, view_dataset
from maskrcnn_ext.data.check.images import check_images, make_thumbnail


def test_16_bit_images_keep_their_range():
    values = np.random.default_rng(0).integers(0, 65535, (40, 40), np.uint16)
    assert np.ptp(make_thumbnail(Image.fromarray(values))) > 5000


def view_of_file(path, height=30, width=40):
    image = {"id": 1, "file_name": path.name, "height": height, "width": width}
    return view_dataset({"images": [image], "annotations": [], "categories": []}, path.parent, "set")


def test_an_image_has_its_upright_size_and_a_digest_of_its_pixels(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.tif")
    image.save(tmp_path / "turned.png", exif=exif)
    upright, other, turned = (
        next(iter(read_images(view_of_file(tmp_path / name)).values())) for name in ("a.png", "b.tif", "turned.png")
    )
    assert (upright.height, upright.width, upright.orientation) == (30, 40, 1)
    assert (other.height, other.width) == (30, 40)
    assert (turned.height, turned.width, turned.orientation) == (40, 30, 6)
    assert upright.digest != turned.digest


@pytest.mark.parametrize(("name", "kind"), [("missing.png", "image-missing"), ("broken.png", "image-corrupt")])
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path, name, kind):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    view = view_of_file(tmp_path / name)
    (fault,) = check_images(view, read_images(view))
    assert fault.kind == kind
    assert fault.message


@pytest.mark.parametrize(
    ("recorded", "kinds"), [((30, 40), ["image-large"]), ((40, 30), ["image-large", "exif-rotation"])]
)
def test_an_image_that_is_too_large_to_read_at_once_is_no_damaged_file(tmp_path, monkeypatch, recorded, kinds):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png", exif=exif)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    view = view_of_file(tmp_path / "a.png", *recorded)
    assert [fault.kind for fault in check_images(view, read_images(view))] == kinds


@pytest.mark.parametrize(
    ("orientation", "recorded", "kinds"),
    [
        (1, (30, 40), []),
        (1, (40, 30), ["image-size"]),
        (6, (40, 30), []),
        (6, (30, 40), ["exif-rotation"]),
        (3, (30, 40), ["exif-unclear"]),
    ],
)
def test_size_and_rotation_are_compared_with_the_record(tmp_path, orientation, recorded, kinds):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    view = view_of_file(tmp_path / "a.jpg", *recorded)
    assert [fault.kind for fault in check_images(view, read_images(view))] == kinds
