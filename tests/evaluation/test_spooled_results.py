"""Results in the temporary file are those that were added; several processes join theirs on the main one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_ext.common.files import WriteError
from maskrcnn_ext.evaluation import spooled_results
from maskrcnn_ext.evaluation.spooled_results import SpooledResults


def result(image_id, score, **more):
    return {"image_id": image_id, "category_id": 1, "score": score, "bbox": [0.1, 2, 3, 4], **more}


def test_results_are_those_that_were_added(tmp_path):
    results = SpooledResults(tmp_path / "new")
    mask = {"size": [2, 2], "counts": "04"}
    added = [result("a", 0.1 + 0.2), result("a", 0.5, segmentation=mask)]
    number = np.int64(7)  # which JSON does not have
    results.add("a", added)
    results.add(number, [])
    assert results["a"] == added
    results.add("a", [result("a", 0.25)])  # after a read, and an image that came twice
    assert dict(results) == {"a": [*added, result("a", 0.25)], number: []}
    assert (results.counts, results.counts.total()) == ({"a": 3, number: 0}, 3)
    assert (results.having["bbox"], results.having["segmentation"], results.having["keypoints"]) == (3, 1, 0)
    with pytest.raises(KeyError):
        results["b"]
    assert list((tmp_path / "new").iterdir()) == [], "the file has no name, so that a killed program leaves none"


def test_a_full_disk_is_one_line(tmp_path):
    results = SpooledResults(tmp_path)
    with Path("/dev/full").open("wb", buffering=0) as full:
        results._file = full
        with pytest.raises(WriteError, match=f"cannot store predictions in {tmp_path} .No space left on device"):
            results.add(1, [result(1, 0.5)])


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(WriteError, match=f"cannot store predictions in {tmp_path}/out"):
        SpooledResults(tmp_path / "out")


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=3)
    spooled_results._BATCH = 3
    results = SpooledResults()
    for image_id in range(rank, 12, 3 if rank < 2 else 100):  # the last process has one image
        results.add(image_id, [result(image_id, 0.5)] * image_id)
    for _ in range(2):  # the second time, nothing is left to move
        results.gather()
        Path(folder, f"{rank}.json").write_text(json.dumps({key: len(found) for key, found in results.items()}))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_join_their_results(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=3)
    main, *others = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3))
    assert main == {str(image_id): image_id for image_id in (0, 3, 6, 9, 1, 4, 7, 10, 2)}
    assert others == [{}, {}]
