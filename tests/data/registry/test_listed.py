"""A part of any data set, by a list of its images."""

from pathlib import Path

import pytest

from maskrcnn_ext.data.registry.catalog import load_dataset, register
from maskrcnn_ext.data.registry.listed import listed_name, split_listed_name, write_list
from maskrcnn_ext.data.registry.resolve import absolute_name
from maskrcnn_ext.errors import InputError
from tests.helpers.labelled_images import noise, write_data


@pytest.fixture
def name(tmp_path):
    return write_data(tmp_path / "data", [(f"{i}.png", noise(8, 8)) for i in range(4)], [(0, 0, 1, 1, 4, 4)])


def test_the_listed_images_in_the_order_of_the_data_set(name, tmp_path):
    records = load_dataset(name).images
    write_list(tmp_path / "part.txt", [records[2], records[0]])
    part = listed_name(name, tmp_path / "part.txt")
    assert split_listed_name(part) == (name, tmp_path / "part.txt")
    assert [record.image_id for record in load_dataset(part).images] == [1, 3]


def test_a_registered_data_set_has_parts(name, tmp_path):
    register("listed_test", format="coco", json=name[5:].partition("@")[0], images=name.partition("@")[2])
    write_list(tmp_path / "part.txt", load_dataset("listed_test").images[:1])
    assert len(load_dataset(listed_name("listed_test", tmp_path / "part.txt")).images) == 1


def test_errors_name_the_list(name, tmp_path):
    with pytest.raises(InputError, match=r"gone.txt: cannot be read"):
        load_dataset(listed_name(name, tmp_path / "gone.txt"))
    (tmp_path / "wrong.txt").write_text("1\n77\n")
    with pytest.raises(InputError, match=r"wrong.txt lists 1 missing image: 77"):
        load_dataset(listed_name(name, tmp_path / "wrong.txt"))


def test_a_part_of_a_part(name, tmp_path):
    (tmp_path / "two.txt").write_text("1\n2\n")
    (tmp_path / "one.txt").write_text("1\n")
    part = listed_name(name, tmp_path / "two.txt")
    assert [record.image_id for record in load_dataset(listed_name(part, tmp_path / "one.txt")).images] == [1]


def test_absolute_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_name("data/data.json") == name
    assert absolute_name("coco:data/data.json@data") == name
    assert absolute_name("coco:data/data.json@data@crowds:objects") == f"{name}@crowds:objects"
    assert absolute_name("coco:data/data.json@data@list:a.txt") == f"{name}@list:{Path('a.txt').absolute()}"
    assert absolute_name("yolo:data/a.yaml@val") == f"yolo:{tmp_path}/data/a.yaml@val"
    assert absolute_name("kitti_mots:a@b@0002,0006") == f"kitti_mots:{tmp_path}/a@{tmp_path}/b@0002,0006"
    assert absolute_name("voc:a@b@split:c.txt") == f"voc:{tmp_path}/a@{tmp_path}/b@{tmp_path}/c.txt"
    with pytest.raises(InputError, match=r"data set 'coco:a\.json': write coco:JSON@IMAGES"):
        absolute_name("coco:a.json")
    assert absolute_name("no_such_name") == "no_such_name"
