"""A fifth of the files or of each raster is held out."""

import math

import pytest

from maskrcnn_ext import get_dataset_dicts
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.data.registry.domains.held_out import BY_FILE, BY_PLACE
from tests.helpers.domain_files import write_domain


def test_windows_of_train_and_val_share_no_pixel(root):
    write_domain("tree_crowns", root)
    of_split = {split: get_dataset_dicts(f"tree_crowns_{split}", filter_empty=False) for split in ("train", "val")}
    lowest = max(record["window"][1] + record["window"][3] for record in of_split["train"])
    assert lowest <= min(record["window"][1] for record in of_split["val"])
    assert {record["window"][1] for record in of_split["train"]} == {0, 800, 1600}
    assert {record["window"][1] for record in of_split["val"]} == {3100}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 41])
def test_held_out_groups_stay_together_and_are_never_all(count):
    slices = [ImageRecord(f"volume{n}", f"{n}_{z}", 9, 9) for n in range(count) for z in range(3)]
    windows = [ImageRecord("map", n, 9, 9, extra={"window": [0, 9 * n, 9, 9]}) for n in range(count)]
    for records, parts in ((slices, BY_FILE), (windows, BY_PLACE)):
        train, val = (parts[split](records) for split in ("train", "val"))
        assert train + val == records
        assert train
        assert bool(val) == (count > 1)
    assert not {r.file_name for r in BY_FILE["train"](slices)} & {r.file_name for r in BY_FILE["val"](slices)}
    if count >= 3:
        assert math.isclose(len(BY_FILE["train"](slices)) / len(slices), 0.8, abs_tol=0.2)
