"""Sizes from headers, numbers of label images, and damaged files."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.reading import (
    image_size,
    in_threads,
    list_files,
    list_images,
    pair_files,
    path_below,
    read_json,
    read_labels,
    read_pixels,
    read_rows,
    read_text,
)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
def test_a_size_comes_from_the_header(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (31, 17)).save(file)
    assert image_size(file, "here") == (17, 31)


@pytest.mark.parametrize(("orientation", "size"), [(1, (17, 31)), (3, (17, 31)), (6, (31, 17)), (8, (31, 17))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_size_of_a_rotated_photograph_equals_detectron2s(tmp_path, orientation, size, suffix):
    from detectron2.data.detection_utils import read_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (31, 17)).save(file, exif=exif)
    assert image_size(file, "here") == size == read_image(str(file), "BGR").shape[:2]


def test_rows_of_a_table(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('name,site\n\n"a,b",c\n')
    assert read_rows(file) == [["name", "site"], ["a,b", "c"]]
    file.write_text("name\n" + "a" * 200_000)
    with pytest.raises(InputError, match=r"a\.csv: not a CSV file .field larger than field limit"):
        read_rows(file)


def test_a_size_needs_no_pixels(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 70), np.uint8)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:200])
    assert image_size(tmp_path / "half.png", "here") == (60, 70)
    with pytest.raises(InputError, match=r"half\.png: not a readable image"):
        read_pixels(tmp_path / "half.png")


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_missing_or_broken_image_is_named(tmp_path, content):
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"^here: cannot read image .*a\.png"):
        image_size(file, "here")


def test_a_damaged_label_image_is_never_read_in_part(tmp_path):
    labels = np.random.default_rng(0).integers(0, 60000, (20, 24)).astype(np.uint16)
    Image.fromarray(labels).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    file = tmp_path / "cut.png"
    for length in range(0, len(whole) - 24, 7):  # at the very end are no pixels, but checksums
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.png: not a readable image"):
            read_pixels(file)
    file.write_bytes(whole[:400] + bytes(40) + whole[440:])
    with pytest.raises(InputError, match=r"cut\.png: not a readable image"):
        read_pixels(file)


def test_grey_pngs_of_every_depth_hold_their_numbers(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for bits, row, expected in (
        (1, b"\x50", [0, 1, 0, 1]),
        (2, b"\x1b", [0, 1, 2, 3]),
        (4, b"\x01\x9f", [0, 1, 9, 15]),
        (8, bytes([0, 1, 85, 255]), [0, 1, 85, 255]),
        (16, struct.pack(">4H", 0, 1, 256, 65535), [0, 1, 256, 65535]),
    ):
        header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row))
        (tmp_path / "a.png").write_bytes(png + chunk(b"IEND", b""))
        assert read_labels(tmp_path / "a.png", 1, 4).astype(int).tolist() == [expected]


def test_a_palette_gives_indices_and_colours_are_refused(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([9] * 768)  # all indices have one colour
    image.putdata([0, 3, 255])
    image.save(tmp_path / "p.png")
    assert read_labels(tmp_path / "p.png", 1, 3).tolist() == [[0, 3, 255]]
    with pytest.raises(InputError, match=r"p\.png: label image is 3 x 1, its image 3 x 2"):
        read_labels(tmp_path / "p.png", 2, 3)
    Image.new("RGB", (3, 1)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png: a label image has one channel .* not 3"):
        read_labels(tmp_path / "c.png", 1, 3)


def test_two_images_of_one_name_are_named(tmp_path):
    for name in ("a.png", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"a\.jpg and a\.png have the same name"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="none: no such folder"):
        list_images(tmp_path / "none")


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg", "..\\a.jpg", "C:\\a.jpg"])
def test_a_name_does_not_lead_out_of_its_folder(tmp_path, name):
    with pytest.raises(InputError, match="leads out of"):
        path_below(tmp_path, name, "here")
    assert path_below(tmp_path, "b\\c/a.jpg", "here") == tmp_path / "b" / "c" / "a.jpg"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b""])
def test_broken_json_is_named(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not a"):
        read_json(file)
    file.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(file) == [1]


@pytest.mark.parametrize("name", ["", ".", "/", "a\0b", "x" * 300, None, 3, ["a.jpg"]])
def test_values_that_are_not_file_names_are_errors(tmp_path, name):
    with pytest.raises(InputError, match=r"^here: .* is not a file name"):
        path_below(tmp_path, name, "here")


def test_unreadable_json_is_named(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, message in (("deep.json", "not a JSON file"), ("none.json", "cannot be read"), ("", "cannot be read")):
        with pytest.raises(InputError, match=message):
            read_json(tmp_path / name)


def test_a_changed_bit_of_a_png_is_found(tmp_path):
    labels = np.zeros((20, 24), np.uint8)
    labels[3:9, 4:20] = 7
    file = tmp_path / "a.png"
    Image.fromarray(labels).save(file)
    whole = file.read_bytes()
    for place in range(whole.index(b"IDAT") + 4, len(whole) - 12):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"a\.png: not a readable image"):
            read_pixels(file)


def test_a_jpeg_is_not_a_label_image(tmp_path):
    Image.new("L", (8, 8), 3).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg: JPEG does not keep the values"):
        read_pixels(tmp_path / "a.jpg")


def test_hidden_files_are_no_data(tmp_path):
    for name in ("b.png", "a.png", "._a.png", ".a.png.swp"):
        (tmp_path / name).touch()
    assert [path.name for path in list_files(tmp_path, "*.png")] == ["a.png", "b.png"]
    assert list(list_images(tmp_path)) == ["a", "b"]
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png").touch()
    assert [path.name for path in list_files(tmp_path, "**/*")] == ["a.png", "b.png"]


def test_a_name_is_measured_in_bytes(tmp_path):
    with pytest.raises(InputError, match="is not a file name"):
        path_below(tmp_path, "\u6c14" * 100, "here")


def test_faults_of_items_are_collected_and_the_others_are_read():
    def read(number):
        if number % 2:
            raise InputError(f"item {number}")
        return number

    faults = []
    assert in_threads(read, range(5), faults) == [0, 2, 4]
    assert sorted(faults) == ["item 1", "item 3"]
    with pytest.raises(InputError, match="item 1"):
        in_threads(read, range(2))


@pytest.mark.parametrize("read", [read_text, read_json])
def test_a_text_that_is_not_unicode_names_its_encoding(tmp_path, read):
    file = tmp_path / "a.json"
    file.write_bytes('["\u732b\u72d7"]'.encode("gb18030"))
    with pytest.raises(
        InputError, match=r"a\.json: not UTF-8, probably gb18030.*iconv -f gb18030 -t utf-8 a\.json > a\.utf8\.json"
    ):
        read(file)
    file.write_bytes('["\u732b\u72d7"]'.encode("utf-16"))
    assert read(file) in (["\u732b\u72d7"], '["\u732b\u72d7"]')


@pytest.mark.parametrize("name", ["D:\\me\\b\\a.jpg", "/home/me/b/a.jpg", "../../me/b/a.jpg", "/c/a.jpg"])
def test_a_name_of_another_machine_is_found_by_its_last_parts(tmp_path, name):
    for place in ("a.jpg", "b/a.jpg"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    expected = tmp_path / ("a.jpg" if "/c/" in name else "b/a.jpg")
    assert path_below(tmp_path, name, "here") == expected


def test_nnunets_first_channel_has_the_labels_of_its_case(tmp_path):
    for name in ("images/a_0000.nii", "images/b.nii", "labels/a.nii", "labels/b.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pairs = pair_files(tmp_path / "images", tmp_path / "labels", (".nii",), (".nii",))
    assert [(image.stem, labels.stem) for image, labels in pairs] == [("a_0000", "a"), ("b", "b")]
    (tmp_path / "images/a_0001.nii").touch()
    with pytest.raises(InputError, match=r"a_0001\.nii: has no labels"):
        pair_files(tmp_path / "images", tmp_path / "labels", (".nii",), (".nii",))
