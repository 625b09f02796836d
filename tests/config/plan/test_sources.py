"""Data for a plan: measured, divided, and without what cannot be read."""

import json
from pathlib import Path

import pytest
from PIL import Image

from maskrcnn_ext.config.plan.sources import prepare_data
from maskrcnn_ext.data.registry.catalog import load_dataset
from tests.helpers.labelled_images import noise, write_data


def images(count, *more):
    return [*((f"{i}.png", noise(48, 48, 3, seed=i)) for i in range(count)), *more]


def test_both_sets_are_given(tmp_path):
    train = write_data(tmp_path / "train", images(3), [(0, 0, 5, 5, 20, 20)])
    val = write_data(tmp_path / "val", images(2), [(0, 0, 5, 5, 20, 20)])
    found = prepare_data(train, val, tmp_path / "mine")
    assert found.val is not None
    assert (found.train.name, found.val.name) == (train, val)
    assert not list(tmp_path.glob("mine*"))


def test_a_part_is_held_out_without_unreadable_images(tmp_path):
    name = write_data(tmp_path / "data", images(9, ("bad.png", b"no image")), [(0, 0, 5, 5, 20, 20)])
    found = prepare_data(name, None, tmp_path / "mine")
    assert found.val is not None
    assert (found.train.num_images, found.val.num_images) == (7, 2)
    assert "held out 2 images of 10" in found.notes[0]
    assert "1 image left out" in found.notes[1]
    listed = {record.image_id for part in (found.train, found.val) for record in load_dataset(part.name).images}
    assert listed == set(range(1, 10))


def test_unreadable_images_of_given_sets_are_left_out(tmp_path):
    train = write_data(tmp_path / "train", images(3, ("bad.png", b"")), [(0, 0, 5, 5, 20, 20)])
    found = prepare_data(train, train, tmp_path / "mine")
    assert found.train.name == f"{train}@list:{Path(tmp_path, 'mine_train.txt')}"
    assert found.train.num_images == 3
    assert len(found.train.images.unreadable) == 1


def test_data_is_validated_on_its_own_split(tmp_path):
    """The classes are those of the training, also if the split to validate on lacks one."""
    for split, labels in (("train", ("cat", "dog")), ("valid", ("dog",))):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        shapes = [{"label": label, "shape_type": "polygon", "points": [[5, 5], [20, 5], [20, 20]]} for label in labels]
        Image.fromarray(noise(48, 48, 3, seed=len(labels))).save(folder / "a.png")
        (folder / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": shapes}))
    found = prepare_data(str(tmp_path / "data"), None, tmp_path / "mine")
    assert found.val is not None
    assert (found.train.num_images, found.val.num_images) == (1, 1)
    assert found.train.objects.classes == found.val.objects.classes == ("cat", "dog")
    assert "validates on the data's own split" in found.notes[0]


@pytest.mark.parametrize(
    ("train", "val", "classes"),
    [
        (("cat", "dog"), ("dog", "cat"), ("cat", "dog")),
        (("cat", "dog"), ("cat",), ("cat", "dog")),
        (("cat",), ("dog", "cat"), ("cat", "dog")),
        (("a, b", "cat"), ("cat", "a, b"), ("a, b", "cat")),
    ],
)
def test_both_sets_are_read_with_the_same_classes(tmp_path, train, val, classes):
    """Each file states other classes; the objects keep theirs."""
    names = [
        write_data(tmp_path / part, images(2), [(0, index, 5, 5, 20, 20 + index) for index in range(len(has))], has)
        for part, has in (("train", train), ("val", val))
    ]
    found = prepare_data(*names, tmp_path / "mine")
    assert found.val is not None
    for has, part in ((train, found.train), (val, found.val)):
        assert part.objects.classes == classes
        data = load_dataset(part.name)
        sizes = {data.classes[each.category]: each.box[3] - each.box[1] for each in data.images[0].annotations}
        assert sizes == {name: 20 + index for index, name in enumerate(has)}
    assert "both are read with" in found.notes[0]


def test_sets_without_a_common_class_are_left_as_they_are(tmp_path):
    names = [write_data(tmp_path / part, images(2), [(0, 0, 5, 5, 20, 20)], (part,)) for part in ("cat", "dog")]
    found = prepare_data(*names, tmp_path / "mine")
    assert found.val is not None
    assert (found.train.objects.classes, found.val.objects.classes) == (("cat",), ("dog",))


def test_a_split_that_repeats_the_training_images_is_not_validated_on(tmp_path):
    write_data(tmp_path / "data", images(10), [(0, 0, 5, 5, 20, 20)])
    file = next((tmp_path / "data").glob("*.json"))
    for split in ("train", "val"):
        (tmp_path / "data" / f"{split}.json").write_text(file.read_text())
    file.unlink()
    found = prepare_data(str(tmp_path / "data"), None, tmp_path / "mine")
    assert found.val is not None
    assert (found.train.num_images, found.val.num_images) == (8, 2)
    assert f"held out 2 images of 10 for validation, by class: {tmp_path}" in found.notes[0]


def test_one_image_is_not_divided(tmp_path):
    name = write_data(tmp_path / "data", images(1), [(0, 0, 5, 5, 20, 20)])
    assert prepare_data(name, None, tmp_path / "mine").val is None


def test_one_image_that_can_be_read_is_all_of_the_plan(tmp_path):
    name = write_data(tmp_path / "data", images(1, ("a.png", b""), ("b.png", b"")), [(0, 0, 5, 5, 20, 20)])
    found = prepare_data(name, None, tmp_path / "mine")
    assert (found.train.num_images, found.val) == (1, None)
    assert len(found.train.images.unreadable) == 2
    assert len(load_dataset(found.train.name).images) == 1


@pytest.mark.parametrize("is_split", [False, True])
def test_images_that_break_while_they_are_decoded_are_not_validated_on(tmp_path, is_split):
    for part in ("train", "val") if is_split else ("data",):
        name = write_data(tmp_path / part, images(6), [(index, 0, 5, 5, 20, 20) for index in range(6)])
    for file in tmp_path.glob("[dv]*/[0-3].png"):
        file.write_bytes(file.read_bytes()[:1000])
    found = prepare_data(str(tmp_path) if is_split else name, None, tmp_path / "mine")
    assert found.val is not None
    sizes = (found.train.num_images, found.val.num_images)
    assert sizes == ((6, 2) if is_split else (1, 1))
    named = found.val.images.unreadable if is_split else [note for note in found.notes if "4 images left out" in note]
    assert len(named) == (4 if is_split else 1)


def test_a_split_without_images_is_not_validated_on(tmp_path):
    write_data(tmp_path / "train", images(5), [(0, 0, 5, 5, 20, 20)])
    write_data(tmp_path / "val", [], [])
    found = prepare_data(str(tmp_path), None, tmp_path / "mine")
    assert found.val is not None
    assert (found.train.num_images, found.val.num_images) == (4, 1)
    assert found.notes[0].endswith("val has no image to validate on")
    assert "held out 1 image of 5" in found.notes[1]


def test_a_raster_is_cut_into_tiles_and_its_end_is_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr("maskrcnn_ext.config.plan.rules.canvas._LARGE", 1_000_000)
    objects = [(0, 0, x, y, 30, 30) for x in range(20, 1000, 120) for y in range(20, 1000, 120)]
    name = write_data(tmp_path / "data", [("raster.npy", noise(1100, 1100, 3))], objects)
    found = prepare_data(name, None, tmp_path / "mine")
    assert found.val is not None
    assert found.train.name == f"{name}@tiles:512@list:{tmp_path / 'mine_train.txt'}"
    assert f"cut into tiles of 512 x 512 pixels, for training and validation: {name}@tiles:512" in found.notes[0]
    train, val = (load_dataset(part.name).images for part in (found.train, found.val))
    windows = [[record.extra["window"] for record in part] for part in (train, val)]
    assert len(windows[0]) + len(windows[1]) < 9, "tiles that overlap those held out are left out"
    for x, y, width, height in windows[0]:
        assert all(
            x + width <= left or left + w <= x or y + height <= top or top + h <= y for left, top, w, h in windows[1]
        )
