"""Open Images: boxes, groups, class names, masks, and errors for broken files."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.openimages import read_openimages

BOXES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
MASKS = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
CAT, DOG = "/m/01yrx", "/m/0bt9lr"
# Corners in the order of the file: x0, x1, y0, y1.
FIRST, SECOND = (0.1, 0.5, 0.25, 0.75), (0.012500, 0.987654, 0, 1)


def box(image="a", label=CAT, corners=FIRST, group=0):
    return f"{image},xclick,{label},1,{','.join(f'{v:.6f}' for v in corners)},0,1,{group},0,0"


def mask(path, image="a", label=CAT, corners=FIRST):
    return f"{path},{image},{label},e16d01da,{','.join(f'{v:.5f}' for v in corners)},0.85,0.1 0.2 1;0.3 0.4 0"


@pytest.fixture
def write(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "classes.csv").write_text(f"{CAT},Cat\n{DOG},Dog\n/m/0k4j,Car\n")

    def write(*rows, masks=(), header=BOXES):
        (tmp_path / "boxes.csv").write_text("\n".join([header, *rows]) + "\n")
        (tmp_path / "masks.csv").write_text("\n".join([MASKS, *masks]) + "\n")
        return tmp_path / "boxes.csv", tmp_path / "images"

    return write


def test_boxes_are_fractions_and_groups_are_crowds(write, tmp_path):
    files = write(box(), box(label=DOG, corners=(0, 1, 0, 0.5), group=1), box(image="elsewhere"))
    data = read_openimages(*files, descriptions=tmp_path / "classes.csv")
    assert data.classes == ["Cat", "Dog"]
    first, second = data.images
    assert (first.image_id, first.height, first.width) == ("a", 40, 50)
    cat, dog = first.annotations
    np.testing.assert_allclose(cat.box, [5, 10, 25, 30])
    assert (cat.category, cat.crowd, cat.segmentation) == (0, False, None)
    assert (dog.box, dog.category, dog.crowd) == ((0, 0, 50, 20), 1, True)
    assert (second.image_id, second.annotations) == ("b", [])


def test_without_names_the_classes_are_the_files(write):
    assert read_openimages(*write(box(label=DOG), box())).classes == [CAT, DOG]


def test_classes_are_chosen_and_ordered(write, tmp_path):
    files = write(box(), box(label=DOG))
    options = {"descriptions": tmp_path / "classes.csv"}
    data = read_openimages(*files, classes=["Car", "Dog"], **options)
    assert [each.category for each in data.images[0].annotations] == [1]
    with pytest.raises(InputError, match=r"classes\.csv: no class 'Dgo'"):
        read_openimages(*files, classes=["Dgo"], **options)
    with pytest.raises(InputError, match=r"boxes\.csv: no class 'Dog'"):
        read_openimages(*files, classes=["Dog"])


@pytest.mark.parametrize("bits", ["1", "L"])
def test_masks_belong_to_the_boxes_they_were_drawn_from(write, tmp_path, bits):
    small = np.zeros((20, 25), bool)
    small[5:15, 3:12] = True
    Image.fromarray(small).convert(bits).save(tmp_path / "masks" / "a_1.png")
    whole = np.zeros((40, 50), bool)
    whole[:, 10:20] = True
    Image.fromarray(whole).convert(bits).save(tmp_path / "masks" / "a_2.png")
    files = write(
        box(label=DOG, corners=FIRST),
        box(corners=SECOND, group=1),
        box(),
        masks=[mask("a_1.png"), mask("a_2.png", corners=SECOND), mask("x.png", image="elsewhere")],
    )
    (record, _) = read_openimages(*files, masks=tmp_path / "masks.csv", mask_images=tmp_path / "masks").images
    dog, group, cat = record.annotations
    assert (dog.segmentation, group.crowd) == (None, True)
    np.testing.assert_array_equal(mask_util.decode(cat.segmentation), small.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(mask_util.decode(group.segmentation), whole)
    np.testing.assert_allclose(cat.box, [5, 10, 25, 30])


def test_a_mask_without_a_box_is_a_separate_object(write, tmp_path):
    Image.new("L", (50, 40), 255).save(tmp_path / "masks" / "a_1.png")
    files = write(box(label=DOG), masks=[mask("a_1.png")])
    (record, _) = read_openimages(*files, masks=tmp_path / "masks.csv", mask_images=tmp_path / "masks").images
    assert [annotation.segmentation is None for annotation in record.annotations] == [True, False]


def test_broken_masks_are_named(write, tmp_path):
    options = {"masks": tmp_path / "masks.csv", "mask_images": tmp_path / "masks"}
    files = write(box(), masks=[mask("a_1.png")])
    with pytest.raises(InputError, match=r"a_1\.png: not a readable image"):
        read_openimages(*files, **options)
    Image.new("L", (50, 50)).save(tmp_path / "masks" / "a_1.png")
    with pytest.raises(InputError, match=r"a_1\.png: its shape is 50 x 50, which differs from that of .*a\.jpg"):
        read_openimages(*files, **options)
    Image.new("RGB", (50, 40)).save(tmp_path / "masks" / "a_1.png")
    with pytest.raises(InputError, match=r"a_1\.png: a mask has one channel"):
        read_openimages(*files, **options)
    files = write(box(), masks=[mask("../a.png")])
    with pytest.raises(InputError, match="leads out of"):
        read_openimages(*files, **options)
    with pytest.raises(InputError, match=r"give both `masks` \(a CSV\) and `mask_images`"):
        read_openimages(*files, masks=tmp_path / "masks.csv")


def test_a_string_names_it(write):
    (record,) = get_dataset_dicts("openimages:{}@{}".format(*write(box(corners=(0, 1, 0, 1)))))
    assert record["annotations"][0]["bbox"] == [0, 0, 50, 40]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (box().replace("0.100000", "x"), "line 3: expected numbers"),
        (box().replace("0.100000", "nan"), "line 3: expected finite numbers"),
        (box()[:30], "line 3: 6 fields, but 13 columns"),
        (box(corners=(0.1, 1.2, 0, 1)), "image a, line 3: 1.2 is outside of the image"),
        (box(corners=(0.5, 0.5, 0, 1)), "image a, line 3: box .* has no area"),
    ],
)
def test_a_broken_row_is_named(write, row, message):
    with pytest.raises(InputError, match=message) as caught:
        read_openimages(*write(box(), row))
    assert "boxes.csv" in str(caught.value)


def test_broken_files_are_named(write, tmp_path):
    with pytest.raises(InputError, match=r"boxes\.csv: names none of the 2 images in"):
        read_openimages(*write(box(image="elsewhere")))
    with pytest.raises(InputError, match=r"boxes\.csv: no column XMin, found MaskPath, ImageID,"):
        read_openimages(*write(header=MASKS))
    with pytest.raises(InputError, match=r"/m/0zzz is not in .*classes\.csv"):
        read_openimages(*write(box(label="/m/0zzz")), descriptions=tmp_path / "classes.csv")
    with pytest.raises(InputError, match=r"boxes\.csv: expected rows `label,name`"):
        read_openimages(*write(box()), descriptions=tmp_path / "boxes.csv")
    boxes, images = write(box())
    boxes.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"boxes\.csv: not UTF-8, probably"):
        read_openimages(boxes, images)
    boxes.write_text("")
    with pytest.raises(InputError, match=r"boxes\.csv: no column ImageID, found nothing"):
        read_openimages(boxes, images)
    boxes, images = write(box())
    (images / "b.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot read image .*b\.jpg"):
        read_openimages(boxes, images)


def test_masks_of_other_images_are_named(write, tmp_path):
    files = write(box(), masks=[mask("x.png", image="elsewhere")])
    with pytest.raises(InputError, match=r"masks\.csv: names none of the 2 images in "):
        read_openimages(*files, masks=tmp_path / "masks.csv", mask_images=tmp_path / "masks")


def test_all_faults_are_listed_and_swapped_corners_and_rounding_are_corrected(write, caplog):
    rows = [box(), box(corners=(0.5, 0.1, 0.75, 0.25)), box(corners=(0.1, 1.004, 0, 1)), box(corners=(0.1, 2, 0, 1))]
    files = write(*rows, box(image="b", corners=(0.1, 0.1, 0, 1)))
    faults = []
    first, second = read_openimages(*files, faults=faults).images
    np.testing.assert_allclose([a.box for a in first.annotations], [[5, 10, 25, 30], [5, 10, 25, 30], [5, 0, 50, 40]])
    assert second.annotations == []
    assert len(faults) == 2
    assert "1 box has swapped corners" in caplog.text
    assert "1 object extends beyond its image" in caplog.text
