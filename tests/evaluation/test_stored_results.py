"""Results that stay in their file are those of the file, and are evaluated to the same numbers."""

import json

import numpy as np
import pytest

from maskrcnn_ext.benchmark.evaluation import make_detections
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.nuclei import nuclei_metrics
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.stored_results import StoredResults, columns_of
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.truth import load_truth
from maskrcnn_ext.ops.rle import with_text_counts
from tests.helpers.scenes import found, perfect, truth_of


@pytest.fixture(scope="module")
def detections():
    """Ground truth with a crowd, and results in mixed order, some with mask scores and without boxes."""
    content, results = make_detections(num_images=4, num_objects=5, num_classes=3)
    content["annotations"][5]["iscrowd"] = 1
    for image in content["images"]:
        image["site"] = image["id"] % 2
    results = [{**one, "segmentation": with_text_counts(one["segmentation"])} for one in results]
    for index, one in enumerate(results):
        if index % 3 == 0:
            one["mask_score"] = one["score"] / 2
        if index % 4 == 0:
            del one["bbox"]
    order = np.random.default_rng(0).permutation(len(results))
    return load_truth(content), [results[index] for index in order]


@pytest.fixture(scope="module", params=[None, 2, "wide"])
def both(request, detections, tmp_path_factory):
    """Ground truth, and the results of a file in memory and stored. The file has another layout each time."""
    truth, results = detections
    file = tmp_path_factory.mktemp("stored") / "results.json"
    if request.param == "wide":
        file.write_text(" \n[" + ",".join(f"\n  {json.dumps(one)}  " for one in results) + "\n]\r\n")
    else:
        file.write_text(json.dumps(results, indent=request.param))
    return truth, load_results(file, truth), load_results(file, truth, in_memory=0)


def test_the_same_results(both):
    _, known, stored = both
    assert isinstance(stored, StoredResults)
    assert list(stored) == known
    assert stored[-1] == known[-1]
    assert stored[3:9:2] == known[3:9:2]
    assert columns_of(stored) == columns_of(known)
    with pytest.raises(IndexError):
        stored[len(known)]


def test_the_same_numbers_to_the_last_digit(detections, tmp_path):
    truth, results = detections
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    known, stored = (
        evaluate(truth, load_results(file, truth, in_memory=size), max_detections=8) for size in (10**9, 0)
    )
    assert set(known["tasks"]) == {"bbox", "segm"}
    assert known == stored


def test_the_nuclei_metrics_are_the_same(tmp_path):
    content = truth_of([(1, 0, 20 * i, 10, 15 + 10 * (i % 2), 15) for i in range(6)])
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{**one, "score": 0.4 + i / 20} for i, one in enumerate(perfect(content)[1:])]))
    truth = load_truth(content)
    known, stored = (nuclei_metrics(truth, load_results(file, truth, in_memory=size)) for size in (10**9, 0))
    assert known == stored
    assert 0 < known["AJI"] < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "a list of detections"),
        ("[1]", "a list of detections"),
        ('[{"a": 1}', "a comma is expected at byte 9"),
        ('[{"a": 1} {"a": 1}]', "a comma is expected"),
        ('[{"a": 1}] 3', "more after the list"),
        ('[{"a": ' + "[" * 100_000, "not JSON"),
        ('[{"a": 1', "not JSON at byte 1"),
        ("[" + json.dumps(found(4, 0, 1, 1, 2, 2)) + "]", "`image_id`, such as 4, of no image"),
        ("[" + json.dumps({**found(1, 0, 1, 1, 2, 2), "score": None}) + "]", "entry 0 has the `score` None"),
    ],
)
def test_broken_files_are_one_line(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_results(tmp_path / "results.json", load_truth(truth_of([(1, 0, 10, 10, 20, 20)])), in_memory=0)
    assert "\n" not in str(error.value)


def test_an_entry_longer_than_a_piece_and_other_alphabets(tmp_path):
    content = truth_of([(1, 0, 10, 10, 20, 20)])
    for one in (content["images"][0], *content["annotations"]):
        one["id" if "height" in one else "image_id"] = "Straße"
    truth = load_truth(content)
    one = {**found("Straße", 0, 10, 10, 20, 20), "note": "x" * 20_000}
    (tmp_path / "results.json").write_text(json.dumps([one, one], ensure_ascii=False), encoding="utf-8")
    stored = load_results(tmp_path / "results.json", truth, in_memory=0)
    assert [result["image_id"] for result in stored] == ["Straße"] * 2
    assert len(stored[1]["note"]) == 20_000
    content = json.dumps([one], ensure_ascii=False)
    (tmp_path / "marked.json").write_text(content, encoding="utf-8-sig")
    assert len(load_results(tmp_path / "marked.json", truth, in_memory=0)) == 1
    (tmp_path / "latin.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"latin\.json: not JSON at byte 1 \('utf-8' codec can't decode"):
        load_results(tmp_path / "latin.json", truth, in_memory=0)
    (tmp_path / "empty.json").write_text("[ ]")
    assert list(load_results(tmp_path / "empty.json", truth, in_memory=0)) == []
