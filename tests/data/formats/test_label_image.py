"""Label images: PNGs and TIFFs, planes and stacks, instances and classes, and real ones."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.label_image import read_label_image

LABELS = np.array([[0, 0, 3, 3, 0], [0, 0, 3, 0, 0], [9, 9, 0, 0, 3]])


@pytest.fixture
def folders(tmp_path):
    for name in ("labels", "images"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (5, 3)).save(tmp_path / "images" / "a.jpg")
    return tmp_path / "labels", tmp_path / "images"


def masks_of(record):
    return [mask_util.decode(annotation.segmentation) for annotation in record.annotations]


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bits"])
def test_every_number_is_an_object(folders, kind):
    image = Image.fromarray(LABELS.astype(np.uint16 if kind == "16 bits" else np.uint8))
    if kind == "palette":
        image.putpalette([0] * 768)
    image.save(folders[0] / "a.png")
    data = read_label_image(*folders)
    assert data.classes == ["object"]
    (record,) = data.images
    assert (record.image_id, record.height, record.width, record.extra) == ("a", 3, 5, {})
    assert [(each.id, each.box) for each in record.annotations] == [(3, (2, 0, 5, 3)), (9, (0, 2, 2, 3))]
    for value, mask in zip((3, 9), masks_of(record), strict=True):
        np.testing.assert_array_equal(mask, value == LABELS)


def test_a_mask_of_one_bit_is_one_object(folders):
    Image.fromarray(LABELS > 0).save(folders[0] / "a.png")
    (annotation,) = read_label_image(*folders).images[0].annotations
    assert annotation.box == (0, 0, 5, 3)


def test_ignored_numbers_are_no_objects(folders):
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[0] / "a.png")
    (annotation,) = read_label_image(*folders, ignore=[3, 255]).images[0].annotations
    assert annotation.id == 9
    assert read_label_image(*folders, ignore=[3, 9]).images[0].annotations == []


def test_unlabelled_pixels_are_a_crowd_of_each_class(folders):
    labels = np.where(LABELS == 3, 255, LABELS)
    Image.fromarray(labels.astype(np.uint8)).save(folders[0] / "a.png")
    options = {"void": [255, 254], "categories": {9: "b"}, "classes": ["b"]}
    cell, region = read_label_image(*folders, **options).images[0].annotations
    assert (cell.crowd, region.crowd, region.category) == (False, True, 0)
    np.testing.assert_array_equal(mask_util.decode(region.segmentation), labels == 255)


def test_names_may_differ_in_the_word_for_images_and_masks(folders):
    labels, images = folders
    for name in ("image_0", "Image-1", "IMG2", "img_3", "image_3"):
        Image.new("RGB", (5, 3)).save(images / f"{name}.jpg")
    for name in ("mask_0", "label1", "2"):
        Image.fromarray(LABELS.astype(np.uint8)).save(labels / f"{name}.png")
    assert [record.image_id for record in read_label_image(labels, images).images] == ["IMG2", "Image-1", "image_0"]
    Image.fromarray(LABELS.astype(np.uint8)).save(labels / "mask_3.png")
    with pytest.raises(InputError, match=r"mask_3.png: no image mask_3\.\*"):  # of two it could be
        read_label_image(labels, images)


def test_penn_fudan_has_its_masks_under_a_suffix(tmp_path):
    for folder in ("PNGImages", "PedMasks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (5, 3)).save(tmp_path / "PNGImages" / "FudanPed00001.png")
    image = Image.fromarray(LABELS.astype(np.uint8))
    image.putpalette([0] * 768)
    image.save(tmp_path / "PedMasks" / "FudanPed00001_mask.png")
    data = read_label_image(tmp_path / "PedMasks", tmp_path / "PNGImages", suffix="_mask", classes=["person"])
    assert (data.classes, data.images[0].image_id) == (["person"], "FudanPed00001")
    assert len(data.images[0].annotations) == 2
    with pytest.raises(InputError, match=r"no label images \*_seg\.png"):
        read_label_image(tmp_path / "PedMasks", tmp_path / "PNGImages", suffix="_seg")


def test_connected_parts_of_a_class_are_objects(folders):
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[0] / "a.png")
    categories = {9: "road", 3: "car", 5: "bus"}
    data = read_label_image(*folders, categories=categories, classes=["bus", "car", "road"])
    (record,) = data.images
    found = [(data.classes[each.category], each.box) for each in record.annotations]
    assert sorted(found) == [("car", (2, 0, 4, 2)), ("car", (4, 2, 5, 3)), ("road", (0, 2, 2, 3))]
    assert read_label_image(*folders, categories=categories).classes == ["road", "car", "bus"]
    with pytest.raises(InputError, match=r"a\.png: number 9 is neither in `categories` nor in `ignore`"):
        read_label_image(*folders, categories={3: "car"})
    assert len(read_label_image(*folders, categories={3: "car"}, ignore=[9]).images[0].annotations) == 2


def test_objects_of_unconnected_parts_are_counted_and_may_be_several(folders, caplog):
    labels = np.zeros((3, 5), np.uint8)
    labels[0, :2] = labels[0, 3] = labels[2, 4] = 200
    labels[2, 0] = 7
    Image.fromarray(labels).save(folders[0] / "a.png")
    assert len(read_label_image(*folders).images[0].annotations) == 2
    assert "1 of 2 objects consists of several unconnected parts, such as number 200 of" in caplog.text
    assert '@categories:{"200":"NAME"} if the numbers are classes' in caplog.text
    assert "add @instances:component" in caplog.text
    caplog.clear()
    found = [a.box for a in read_label_image(*folders, instances="component").images[0].annotations]
    assert sorted(found) == [(0, 0, 2, 1), (0, 2, 1, 3), (3, 0, 4, 1), (4, 2, 5, 3)]
    assert not caplog.text
    with pytest.raises(InputError, match="`instances` is 'parts', expected 'value' or 'component'"):
        read_label_image(*folders, instances="parts")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_holds_numbers_of_any_width(folders, compression):
    tifffile = pytest.importorskip("tifffile")
    for dtype in (np.uint8, np.int16, np.uint32):
        tifffile.imwrite(folders[0] / "a.tif", LABELS.astype(dtype), compression=compression)
        (record,) = read_label_image(*folders).images
        assert [annotation.box for annotation in record.annotations] == [(2, 0, 5, 3), (0, 2, 2, 3)]


@pytest.mark.parametrize("kind", ["plain", "imagej", "pages", "colours"])
def test_a_stack_is_a_record_a_slice(tmp_path, kind):
    tifffile = pytest.importorskip("tifffile")
    stack = np.stack([LABELS, LABELS * 0, LABELS.T[:3].T @ np.eye(3, 5, dtype=int)]).astype(np.uint16)
    image = np.zeros((*stack.shape, 3) if kind == "colours" else stack.shape, np.uint8)
    if kind == "pages":
        with tifffile.TiffWriter(tmp_path / "image.tif") as writer:
            for plane in image:
                writer.write(plane, contiguous=False, metadata=None)
    else:
        options = {"imagej": True} if kind == "imagej" else {}
        tifffile.imwrite(
            tmp_path / "image.tif", image, **options, photometric="rgb" if kind == "colours" else "minisblack"
        )
    tifffile.imwrite(tmp_path / "mask.tif", stack, imagej=kind == "imagej", photometric="minisblack")
    records = read_label_image(tmp_path / "mask.tif", tmp_path / "image.tif").images
    assert [(record.image_id, record.extra) for record in records] == [(f"image/{z}", {"slice": z}) for z in range(3)]
    for plane, record in zip(stack, records, strict=True):
        assert [annotation.id for annotation in record.annotations] == [v for v in np.unique(plane) if v]
        for annotation, mask in zip(record.annotations, masks_of(record), strict=True):
            np.testing.assert_array_equal(mask, plane == annotation.id)


def test_a_stack_of_another_depth_than_its_image_is_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((4, 30, 20), np.uint16), photometric="minisblack")
    for shape in ((5, 30, 20), (4, 30, 21), (30, 20), (4, 3, 30, 21)):
        tifffile.imwrite(tmp_path / "image.tif", np.zeros(shape, np.uint8), photometric="minisblack")
        with pytest.raises(InputError, match=r"mask\.tif: label image is \(4, 30, 20\), its image .*image\.tif \("):
            read_label_image(tmp_path / "mask.tif", tmp_path / "image.tif")
    (tmp_path / "image.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"mask\.tif: cannot read image .*image\.tif"):
        read_label_image(tmp_path / "mask.tif", tmp_path / "image.tif")


def test_files_that_are_not_label_images_are_named(folders):
    tifffile = pytest.importorskip("tifffile")
    labels, images = folders
    with pytest.raises(InputError, match="no label images"):
        read_label_image(labels, images)
    for pixels, message in (
        (np.full((3, 5), 0.5, np.float32), r"label value 0\.5 is not a whole number"),
        (np.full((3, 5), 1e300), r"label value 1e\+300 is not a whole number"),
        (np.full((3, 5), np.nan, np.float32), "label value nan is not a whole number"),
        (np.full((3, 5), -1, np.int16), "label value -1 is negative"),
        (np.zeros((3, 4), np.uint8), r"label image is \(3, 4\), its image .*a\.jpg \(3, 5\)"),
        (np.zeros((2, 3, 3, 5), np.uint8), r"is \(H, W\), as TIFF also \(Z, H, W\)"),
    ):
        tifffile.imwrite(labels / "a.tif", pixels, photometric="minisblack")
        with pytest.raises(InputError, match=message):
            read_label_image(labels, images)
    tifffile.imwrite(labels / "a.tif", np.full((3, 5), -1, np.int16))
    assert read_label_image(labels, images, ignore=[-1]).images[0].annotations == []
    tifffile.imwrite(labels / "a.tif", np.zeros((3, 5, 3), np.uint8), photometric="rgb")
    assert read_label_image(labels, images).images[0].annotations == []
    tifffile.imwrite(labels / "a.tif", np.zeros((3, 5, 3), np.uint16), photometric="rgb")
    with pytest.raises(InputError, match=r"a\.tif: a colour label image has 8 bits a channel, this one is uint16"):
        read_label_image(labels, images)
    (labels / "a.tif").unlink()
    Image.new("RGB", (5, 4)).save(labels / "a.png")
    with pytest.raises(InputError, match=r"label image is \(4, 5\), its image .* \(3, 5\)"):
        read_label_image(labels, images)
    (labels / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        read_label_image(labels, images)
    (labels / "a.png").rename(labels / "b.png")
    with pytest.raises(InputError, match=r"b\.png: no image b\.\* in "):
        read_label_image(labels, images)
    with pytest.raises(InputError, match="`classes` must be one name"):
        read_label_image(labels, images, classes=["a", "b"])
    with pytest.raises(InputError, match="`classes` are a, b, `categories` a"):
        read_label_image(labels, images, classes=["a", "b"], categories={1: "a"})


def test_a_string_names_it(folders):
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[0] / "a.png")
    (record,) = get_dataset_dicts("label_image:{}@{}".format(*folders))
    assert [annotation["bbox"] for annotation in record["annotations"]] == [[2, 0, 5, 3], [0, 2, 2, 3]]


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_nuclei_cut_into_tiles_equal_their_coco_file(real_data, split):
    pytest.importorskip("tifffile")
    folder = real_data / "nuclei_stardist"
    (record,) = read_label_image(folder / "images" / "mask2d.tif", folder / "images" / "img2d.tif").images
    assert (record.height, record.width, len(record.annotations)) == (512, 512, 125)
    nuclei = masks_of(record)
    data = json.loads((folder / f"instances_{split}.json").read_text())
    for image in data["images"]:
        x, y = position_of(image["file_name"])
        theirs = [each for each in data["annotations"] if each["image_id"] == image["id"]]
        pieces = [mask[y : y + 128, x : x + 128] for mask in nuclei]
        pieces = [np.asfortranarray(piece) for piece in pieces if piece.sum() >= 5]
        assert len(pieces) == len(theirs)
        overlap = mask_util.iou(
            [mask_util.encode(piece) for piece in pieces], [each["segmentation"] for each in theirs], [0] * len(theirs)
        )
        assert overlap.max(axis=1).min() >= 0.99
        assert sorted(overlap.argmax(axis=1)) == list(range(len(theirs)))


def position_of(name):
    """Returns (x, y) of a tile's corner out of its name."""
    row, column = name.rsplit(".", 1)[0].rsplit("_", 2)[1:]
    return 128 * int(column.lstrip("xc")), 128 * int(row.lstrip("yr"))


@pytest.mark.realdata
def test_a_real_stack_is_its_file_slice_by_slice(real_data):
    tifffile = pytest.importorskip("tifffile")
    folder = real_data / "nuclei_stardist" / "images"
    stack = tifffile.imread(folder / "mask3d.tif")
    records = read_label_image(folder / "mask3d.tif", folder / "img3d.tif").images
    assert len(records) == len(stack) == 31
    assert len({annotation.id for record in records for annotation in record.annotations}) == 51
    for plane, record in zip(stack, records, strict=True):
        redrawn = np.zeros_like(plane)
        for annotation, mask in zip(record.annotations, masks_of(record), strict=True):
            redrawn[mask > 0] = annotation.id
            ys, xs = np.nonzero(mask)
            assert annotation.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        np.testing.assert_array_equal(redrawn, plane)


def test_a_png_belongs_to_a_tiff_that_pillow_cannot_read(folders):
    tifffile = pytest.importorskip("tifffile")
    (folders[1] / "a.jpg").unlink()
    tifffile.imwrite(folders[1] / "a.tif", np.zeros((3, 5, 3), np.uint16), photometric="rgb")
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[0] / "a.png")
    (record,) = read_label_image(*folders).images
    assert (record.height, record.width, len(record.annotations)) == (3, 5, 2)


def test_all_faults_are_listed_and_the_rest_is_read(folders):
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[0] / "a.png")
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[0] / "b.png")
    (folders[0] / "c.png").write_bytes(b"")
    Image.new("L", (5, 3)).save(folders[1] / "c.png")
    faults = []
    assert [record.image_id for record in read_label_image(*folders, faults=faults).images] == ["a"]
    assert [part in fault for part, fault in zip(("no image b", "c.png: not a readable"), faults, strict=True)] == [
        True,
        True,
    ]


def test_roboflows_table_names_the_classes_of_the_numbers(folders):
    Image.fromarray(np.array([[0, 1, 0, 2, 1]] * 3, np.uint8)).save(folders[0] / "a.png")
    table = folders[0] / "_classes.csv"
    table.write_text("Pixel Value, Class\n0, background\n1, bolt\n2, nut\n\n")
    data = read_label_image(*folders)
    assert data.classes == ["bolt", "nut"]
    found = sorted((data.classes[each.category], each.box) for each in data.images[0].annotations)
    assert found == [("bolt", (1, 0, 2, 3)), ("bolt", (4, 0, 5, 3)), ("nut", (3, 0, 4, 3))]
    table.write_text("Pixel Value, Class\nbolt\n")
    with pytest.raises(InputError, match=r"_classes\.csv: expected a number and a class name"):
        read_label_image(*folders)


def test_images_without_labels_are_counted(folders, caplog):
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[0] / "a.png")
    read_label_image(*folders)
    assert "without labels" not in caplog.text
    Image.new("RGB", (5, 3)).save(folders[1] / "b.jpg")
    read_label_image(*folders)
    assert "left out 1 image without labels, such as b.jpg" in caplog.text
    caplog.clear()
    Image.fromarray(LABELS.astype(np.uint8)).save(folders[1] / "a_mask.png")
    read_label_image(folders[1], folders[1], suffix="_mask")
    assert "left out 1 image without labels, such as b.jpg" in caplog.text


def test_images_of_classes_name_the_objects(folders, tmp_path, caplog):
    """VOC's SegmentationClass beside SegmentationObject."""
    classes = np.where(LABELS == 3, 15, np.where(LABELS == 9, 8, 0))
    classes[0, 2] = 255  # one pixel of the border
    (tmp_path / "classes").mkdir()
    for folder, values in (folders[0], LABELS), (tmp_path / "classes", classes):
        Image.fromarray(values.astype(np.uint8)).save(folder / "a.png")
    options = {"class_images": tmp_path / "classes", "void": [255]}
    data = read_label_image(*folders, **options)
    assert data.classes == ["8", "15"]
    assert 'called by their numbers, 8, 15; name them by @categories:{"8":"NAME"}' in caplog.text
    assert [(each.id, each.category) for each in data.images[0].annotations] == [(3, 1), (9, 0)]
    assert "unconnected parts" not in caplog.text  # an object that another one divides
    named = read_label_image(*folders, **options, categories={15: "person", 8: "cat"})
    assert [named.classes[each.category] for each in named.images[0].annotations] == ["person", "cat"]
    parts = read_label_image(tmp_path / "classes", folders[1], **options, instances="component").images[0].annotations
    assert sorted((each.category, each.box) for each in parts if not each.crowd) == [
        (0, (0, 2, 2, 3)),
        (1, (2, 0, 4, 2)),
        (1, (4, 2, 5, 3)),
    ]
    with pytest.raises(InputError, match=r"a\.png: object 9 .* has the number 8 in .*, which `categories` does not"):
        read_label_image(*folders, **options, categories={15: "person"})
    Image.new("L", (4, 3)).save(tmp_path / "classes/a.png")
    with pytest.raises(InputError, match=r"classes/a\.png: label image is 4 x 3, its image 5 x 3"):
        read_label_image(*folders, **options)


@pytest.mark.parametrize(("white", "number"), [(255, 255), ((255, 255, 255), 16777215)])
def test_white_beside_other_numbers_is_warned_of(folders, caplog, white, number):
    colours = np.array([0, 40, white], dtype=object) if number == 255 else np.array([(0,) * 3, (9, 0, 0), white])
    labels = np.searchsorted([0, 3, 9], LABELS)
    Image.fromarray(np.stack(colours[labels.ravel()]).astype(np.uint8).reshape(3, 5, -1).squeeze()).save(
        folders[0] / "a.png"
    )
    data = read_label_image(*folders)
    assert len(data.images[0].annotations) == 2
    assert f"white is an object in 1 label image, such as number {number} of {folders[0]}/a.png" in caplog.text
    assert f"add @void:{number} " in caplog.text
    assert f"@ignore:{number} " in caplog.text
    caplog.clear()
    read_label_image(*folders, void=[number])
    read_label_image(*folders, ignore=[number])
    assert "white is an object" not in caplog.text


@pytest.mark.parametrize("values", [[0, 255], [254, 255], [0, 254]])
def test_other_white_is_an_object(folders, caplog, values):
    Image.fromarray(np.resize(np.array(values, np.uint8), (3, 5))).save(folders[0] / "a.png")
    read_label_image(*folders)
    assert "white is an object" not in caplog.text


def test_red_beside_blue_is_not_white(folders, caplog):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
    Image.fromarray(colours[np.searchsorted([0, 3, 9], LABELS)]).save(folders[0] / "a.png")
    assert [each.id for each in read_label_image(*folders).images[0].annotations] == [255, 255 << 16]
    assert "white is an object" not in caplog.text


def test_a_white_border_of_classes_names_the_option(folders):
    Image.fromarray(np.where(LABELS == 3, 255, LABELS).astype(np.uint8)).save(folders[0] / "a.png")
    with pytest.raises(InputError, match=r"number 255 is neither .*; add @void:255"):
        read_label_image(*folders, categories={9: "b"})


def test_images_may_end_as_those_of_cellpose(tmp_path, caplog):
    for name in ("a_img", "b_img", "c"):
        Image.new("L", (5, 3)).save(tmp_path / f"{name}.png")
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a_masks.png")
    (record,) = read_label_image(tmp_path, tmp_path, suffix="_masks").images
    assert (record.image_id, len(record.annotations)) == ("a_img", 2)
    assert "left out 2 images without labels, such as b_img.png" in caplog.text
