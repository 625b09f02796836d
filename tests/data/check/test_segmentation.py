"""Broken segmentations are reported with their fault, and a repair removes them; their objects keep their boxes."""

import pytest

from maskrcnn_ext.data.check import find_faults, view_dataset
from maskrcnn_ext.data.check.repair import repair
from maskrcnn_ext.data.check.segmentation import parse_segmentation
from tests.helpers.planted import SIZE, serious


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rle: rle.update(counts=rle["counts"][:-2]), "counts"),
        (lambda rle: rle.update(size=[SIZE, SIZE + 1]), "an RLE of size [96, 97], but its image is 96 x 96"),
        (lambda rle: rle.update(size=[2 * SIZE, SIZE // 2]), "an RLE of size [192, 48], but its image is 96 x 96"),
        (lambda rle: rle.update(counts=[5, 5]), "add up to 10"),
        (lambda rle: rle.update(counts=[-5, SIZE * SIZE + 5]), "not all whole numbers of at least 0"),
        (lambda rle: rle.update(counts="\N{SNOWMAN}"), "broken: no RLE has"),
        (lambda rle: rle.update(counts=7), "of type int, expected a list or a text"),
        (lambda rle: rle.pop("size"), "expected [height, width]"),
    ],
)
def test_a_broken_rle_is_found_and_its_object_keeps_the_box(rles, change, message):
    data, folder = rles
    change(data["annotations"][4]["segmentation"])
    view = view_dataset(data, folder, "set")
    faults = find_faults(view)
    assert serious(faults) == {("segmentation-broken", data["annotations"][4]["image_id"], 5)}
    assert message in next(f.message for f in faults if f.kind == "segmentation-broken")
    repaired, _ = repair(data, folder, faults, {})
    left = serious(find_faults(view_dataset(repaired, folder, "set")))
    assert left == {("segmentation-missing", data["annotations"][4]["image_id"], 5)}
    assert "segmentation" not in repaired["annotations"][4]
    assert len(repaired["annotations"]) == len(data["annotations"])


@pytest.mark.parametrize(
    ("polygon", "kind", "message"),
    [
        ([1, 1, 5, 1, 5, 5, 1], "segmentation-broken", "an odd count"),
        ([1, 1, 5, 5, 1, 1], "polygon-short", "2 different points"),
        ([1, 1, 5, 1, None, 5], "segmentation-broken", "not a list of finite numbers"),
    ],
)
def test_a_broken_polygon_is_reported_and_the_others_are_kept(polygon, kind, message):
    found = parse_segmentation([[2, 2, 6, 2, 6, 6, 2, 6], polygon], 10, 10)
    assert [problem[0] for problem in found.problems] == [kind]
    assert message in found.problems[0][1]
    assert (found.form, len(found.polygons), found.area, found.box) == ("polygons", 1, 16, (2, 2, 6, 6))


def test_no_segmentation_and_other_values():
    assert parse_segmentation(None, 10, 10).form == parse_segmentation([], 10, 10).form == "none"
    assert parse_segmentation("x", 10, 10).form == "unknown"
    assert parse_segmentation([[2, 2, 6, 2, 6, 6]], None, None).rle is None


def test_an_outline_that_cannot_be_drawn_is_a_fault():
    zigzag = [v for i in range(50_000) for v in ((0, i / 1000) if i % 2 else (500, 400))]
    found = parse_segmentation([zigzag], 400, 500)
    assert found.rle is None
    assert [(kind, "25,000,000 pixels long" in text) for kind, text in found.problems] == [
        ("segmentation-broken", True)
    ]
