"""The cache of parsed annotations: when an entry is used, refused, replaced and deleted."""

import json
import os

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats import cache
from maskrcnn_ext.data.formats.coco import read_coco
from tests.helpers.coco_files import write_coco_file


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Makes each file count as large, and returns the folder of the cache."""
    monkeypatch.setattr(cache, "MIN_BYTES", 1)
    monkeypatch.setenv("MASKRCNN_EXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse_parsing(monkeypatch):
    def refuse(content):
        raise AssertionError("parsed again")

    monkeypatch.setattr("maskrcnn_ext.data.formats.coco.loads", refuse)


def test_a_cached_file_is_the_same_and_not_parsed_again(tmp_path, cached, monkeypatch, caplog):
    file = write_coco_file(tmp_path)
    annotations = json.loads(file.read_text())["annotations"]
    annotations[0]["segmentation"] = [[1, 2]]
    write_coco_file(tmp_path, annotations=annotations)
    first = read_coco(file, tmp_path)
    (entry,) = cached.iterdir()
    assert entry.stat().st_mode & 0o077 == 0
    refuse_parsing(monkeypatch)
    caplog.clear()
    assert read_coco(file, tmp_path) == first
    assert "left out 1 annotation" in caplog.text, "the warning comes with every reading"
    with pytest.raises(InputError, match="`classes` are x"):
        read_coco(file, tmp_path, classes=["x"])


def test_other_content_or_images_are_other_entries(tmp_path, cached):
    file = write_coco_file(tmp_path)
    read_coco(file, tmp_path)
    assert read_coco(file, tmp_path / "elsewhere").images[0].file_name == str(tmp_path / "elsewhere/sub/0.jpg")
    write_coco_file(tmp_path, annotations=[])
    assert all(not record.annotations for record in read_coco(file, tmp_path).images)
    assert len(list(cached.iterdir())) == 3


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda _: b"", lambda b: b[:40] + b"X" + b[41:], lambda b: b * 2])
def test_a_damaged_entry_is_replaced(tmp_path, cached, damage, monkeypatch):
    file = write_coco_file(tmp_path)
    first = read_coco(file, tmp_path)
    (entry,) = cached.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert read_coco(file, tmp_path) == first
    assert entry.read_bytes() == whole


def test_an_entry_that_others_may_write_is_not_read(tmp_path, cached, caplog):
    file = write_coco_file(tmp_path)
    first = read_coco(file, tmp_path)
    (entry,) = cached.iterdir()
    entry.chmod(0o666)
    assert read_coco(file, tmp_path) == first
    assert "others may write it" in caplog.text
    assert entry.stat().st_mode & 0o077 == 0


def test_the_cache_can_be_off_unwritable_and_forgets(tmp_path, cached, monkeypatch):
    file = write_coco_file(tmp_path)
    first = read_coco(file, tmp_path)
    (entry,) = cached.iterdir()
    os.utime(entry, (0, 0))
    (cached / "notes.txt").write_text("not ours")
    os.utime(cached / "notes.txt", (0, 0))
    write_coco_file(tmp_path, annotations=[])
    read_coco(file, tmp_path)
    assert not entry.exists()
    assert (cached / "notes.txt").exists()
    for place in ("off", str(file)):
        monkeypatch.setenv("MASKRCNN_EXT_CACHE", place)
        write_coco_file(tmp_path)
        assert read_coco(file, tmp_path) == first
    assert len(list(cached.iterdir())) == 2


def test_small_files_are_not_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKRCNN_EXT_CACHE", str(tmp_path / "cache"))
    read_coco(write_coco_file(tmp_path), tmp_path)
    assert not (tmp_path / "cache").exists()


def test_without_a_home_folder_there_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MASKRCNN_EXT_CACHE", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # an id without an entry in the list of users
    monkeypatch.setattr(cache, "MIN_BYTES", 1)
    assert cache.cache_folder() is None
    assert len(read_coco(write_coco_file(tmp_path), tmp_path).images) == 4
