"""The cache of images: shared by processes, within its limit, and removed with its run."""

import logging
import multiprocessing
import os

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.mapping import image_cache
from maskrcnn_ext.data.mapping.image_cache import ImageCache

pytestmark = pytest.mark.usefixtures("own_image_caches")


def test_the_limit_holds_and_is_reported_once(caplog):
    cache = ImageCache("disk", limit_gb=300_000e-9)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b", "c", "d"):
            cache.store(name, np.zeros(131_072, np.uint8))
    assert [cache.load(name) is not None for name in ("a", "b", "c", "d")] == [True, True, False, False]
    assert cache.held_bytes() == 262_144
    assert [message for message in caplog.messages if "is full: 2 images" in message] == caplog.messages[-1:]


def test_each_run_reports_a_full_cache(caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            cache = ImageCache("disk", limit_gb=100_000e-9)
            cache.store("a", np.zeros(131_072, np.uint8))
            cache.store("b", np.zeros(131_072, np.uint8))
    assert ["is full: 0 images" in message for message in caplog.messages] == [True, True]


def _store(cache, name):
    for index in range(20):
        cache.store(f"{name}{index % 10}", np.full(1000, index % 10, np.uint8))


def test_another_file_of_the_same_size_and_time_has_another_key(tmp_path):
    record, cache = {"file_name": str(tmp_path / "a.npy")}, ImageCache("disk")
    keys = []
    for value in (1, 2):
        np.save(tmp_path / "new.npy", np.full((4, 4, 3), value, np.uint8))
        os.utime(tmp_path / "new.npy", (0, 0))  # as `cp -p` and `rsync -t` set it
        (tmp_path / "new.npy").replace(tmp_path / "a.npy")
        keys += [cache.key(record, "BGR"), cache.key(record, "BGR")]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_processes_share_it():
    cache = ImageCache("ram")
    processes = [multiprocessing.get_context("fork").Process(target=_store, args=(cache, "same")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all((cache.load(f"same{index}") == index).all() for index in range(10))
    assert not list(cache.folder.glob("partial-*"))


def test_folders_of_dead_runs_are_removed():
    dead = multiprocessing.get_context("fork").Process(target=os.getpid)
    dead.start()
    dead.join()
    left = image_cache._MEMORY / f"maskrcnn_ext_images-{os.getuid()}-{dead.pid}"
    left.mkdir()
    ImageCache("ram")
    assert not left.exists()


def test_only_old_partial_files_are_removed():
    folder = ImageCache("disk").folder
    old, new = folder / "partial-old", folder / "partial-new"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    ImageCache("disk")
    assert (old.exists(), new.exists()) == (False, True)


def test_unavailable_folders_are_errors(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKRCNN_EXT_CACHE", "off")
    with pytest.raises(InputError, match="MASKRCNN_EXT_CACHE=off"):
        ImageCache("disk")
    monkeypatch.setattr(image_cache, "_MEMORY", tmp_path / "none")
    with pytest.raises(InputError, match="use cache=disk"):
        ImageCache("ram")
