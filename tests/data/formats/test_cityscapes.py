"""Cityscapes: instances, groups, chosen classes, and errors for broken folders."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.cityscapes import read_cityscapes

FRAME = "aachen_000000_000019"


@pytest.fixture
def write(tmp_path):
    def write(labels, *, frame=FRAME, kind="gtFine", photograph=True):
        city = frame.split("_")[0]
        folders = tmp_path / kind / "train", tmp_path / "leftImg8bit" / "train"
        for folder in folders:
            (folder / city).mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels.astype(np.uint16)).save(folders[0] / city / f"{frame}_{kind}_instanceIds.png")
        Image.new("L", labels.shape[::-1]).save(folders[0] / city / f"{frame}_{kind}_labelIds.png")
        if photograph:
            Image.new("RGB", labels.shape[::-1]).save(folders[1] / city / f"{frame}_leftImg8bit.png")
        return folders

    return write


def street():
    labels = np.full((30, 40), 7)  # road
    labels[:5] = 23  # sky
    labels[10:20, 5:15] = 26000  # the first car
    labels[12:22, 10:30] = 26001  # in front of it
    labels[2:9, 30:33] = 24017
    labels[20:28, 0:4] = 24  # a group of persons
    labels[25:28, 20:30] = 29000  # a caravan
    labels[25:28, 34:38] = 33000
    return labels


@pytest.mark.parametrize("kind", ["gtFine", "gtCoarse"])
def test_instances_and_groups_of_the_eight_classes(write, kind):
    labels = street()
    data = read_cityscapes(*write(labels, kind=kind))
    assert data.classes == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    (record,) = data.images
    assert (record.image_id, record.height, record.width) == (FRAME, 30, 40)
    found = {each.id: (data.classes[each.category], each.crowd) for each in record.annotations}
    assert found == {
        24: ("person", True),
        24017: ("person", False),
        26000: ("car", False),
        26001: ("car", False),
        33000: ("bicycle", False),
    }
    for annotation in record.annotations:
        np.testing.assert_array_equal(mask_util.decode(annotation.segmentation), labels == annotation.id)
        ys, xs = np.nonzero(labels == annotation.id)
        assert annotation.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_classes_are_chosen_and_ordered(write):
    folders = write(street())
    data = read_cityscapes(*folders, classes=["car", "person"])
    assert sorted((each.id, each.category) for each in data.images[0].annotations) == [
        (24, 1),
        (24017, 1),
        (26000, 0),
        (26001, 0),
    ]
    with pytest.raises(InputError, match="class 'road', expected some of person, rider, car"):
        read_cityscapes(*folders, classes=["car", "road"])


def test_a_frame_without_objects_is_kept_and_frames_are_sorted(write):
    write(street(), frame="zurich_000001_000019")
    folders = write(np.zeros((30, 40)))
    records = read_cityscapes(*folders).images
    assert [(record.image_id, len(record.annotations)) for record in records] == [
        (FRAME, 0),
        ("zurich_000001_000019", 5),
    ]


def test_a_string_names_it(write):
    (record,) = get_dataset_dicts("cityscapes:{}@{}".format(*write(street())))
    assert record["file_name"].endswith(f"leftImg8bit/train/aachen/{FRAME}_leftImg8bit.png")
    assert sum(annotation["iscrowd"] for annotation in record["annotations"]) == 1


def test_broken_folders_are_named(write, tmp_path):
    folders = write(street(), photograph=False)
    with pytest.raises(InputError, match=rf"cannot read image .*{FRAME}_leftImg8bit\.png"):
        read_cityscapes(*folders)
    with pytest.raises(InputError, match="name a split's folder, such as gtFine/train"):
        read_cityscapes(folders[0].parent, folders[1].parent)
    write(street())
    Image.new("RGB", (41, 30)).save(folders[1] / "aachen" / f"{FRAME}_leftImg8bit.png")
    with pytest.raises(InputError, match="label image is 40 x 30, its image 41 x 30"):
        read_cityscapes(*folders)
    write(street())
    file = folders[0] / "aachen" / f"{FRAME}_gtFine_instanceIds.png"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"_gtFine_instanceIds\.png: not a readable image"):
        read_cityscapes(*folders)


def test_all_faults_are_listed_and_the_rest_is_read(write):
    write(street())
    folders = write(street(), frame="ulm_000000_000001", photograph=False)
    faults = []
    assert len(read_cityscapes(*folders, faults=faults).images) == 1
    assert ["ulm_000000_000001" in fault for fault in faults] == [True]
