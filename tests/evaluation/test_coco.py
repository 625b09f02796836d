"""The evaluator counts all detections, returns 0 without any, ranks masks by mask scores; all other numbers equal Detectron2's."""

import json
import logging
import math
import tracemalloc
from itertools import count
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2 import evaluation
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from maskrcnn_ext import COCOEvaluator, get_dataset_dicts
from maskrcnn_ext.config.callables import node_faults
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle_masks import RLEMasks

SIZE = (64, 96)
PLAIN = {"distributed": False, "use_fast_impl": False}
NAMES = count()


def run(evaluator, people, *, mask_scores):
    """Two detections of one object: a good mask and a bad one, which the class score prefers and the mask score does not."""
    evaluator.reset()
    for record in get_dataset_dicts(people):
        found = record["annotations"][0]
        box = torch.tensor(BoxMode.convert(found["bbox"], found["bbox_mode"], BoxMode.XYXY_ABS))
        x0, y0, x1, y1 = box.int().tolist()
        instances = Instances(SIZE, pred_boxes=Boxes(box.float().repeat(2, 1)), pred_classes=torch.tensor([0, 0]))
        instances.scores = torch.tensor([0.9, 0.8])
        instances.pred_masks = torch.zeros(2, *SIZE, dtype=torch.bool)
        instances.pred_masks[0, y0 : y0 + 2, x0 : x0 + 2] = True
        instances.pred_masks[1, y0:y1, x0:x1] = True
        if mask_scores:
            instances.pred_mask_scores = torch.tensor([0.1, 0.8])
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": instances}])
    return evaluator.evaluate()


def test_masks_are_ranked_by_mask_scores_and_boxes_by_class_scores(people):
    get_dataset_dicts(people)
    options = {"dataset_name": people, "tasks": None, "distributed": False, "use_fast_impl": False}
    stock = run(evaluation.COCOEvaluator(**options), people, mask_scores=False)
    ours = run(COCOEvaluator(**options), people, mask_scores=False)
    scored = run(COCOEvaluator(**options), people, mask_scores=True)
    for task in ("bbox", "segm"):
        assert ours[task] == pytest.approx(stock[task], nan_ok=True)
    assert scored["bbox"] == pytest.approx(stock["bbox"], nan_ok=True)
    assert scored["segm"]["AP"] > 1.5 * stock["segm"]["AP"] > 0


def register(file, boxes, *, size, classes=3, leave_out=(), keypoints=0):
    """Registers the ground truth of a list of (class, x, y, width, height) an image; categories are 10, 20, ... in the file."""
    annotations = []
    for image_id, found in enumerate(boxes, 1):
        for category, x, y, width, height in found:
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": 10 * (category + 1),
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [corners],
            }
            if keypoints:
                annotation.update(keypoints=[x + 1.0, y + 1.0, 2] * keypoints, num_keypoints=keypoints)
            annotations.append({key: value for key, value in annotation.items() if key not in leave_out})
    images = [{"id": i + 1, "file_name": f"{i}.png", "height": size[0], "width": size[1]} for i in range(len(boxes))]
    ids = [10 * (i + 1) for i in range(classes)]
    data = {"images": images, "categories": [{"id": i, "name": f"c{i}"} for i in ids], "annotations": annotations}
    file.write_text(json.dumps({key: value for key, value in data.items() if key not in leave_out}))
    name = f"test_coco_evaluator_{next(NAMES)}"
    contiguous = {dataset_id: index for index, dataset_id in enumerate(ids)}
    MetadataCatalog.get(name).set(
        json_file=str(file), thing_classes=[f"c{i}" for i in ids], thing_dataset_id_to_contiguous_id=contiguous
    )
    return name


def detections(boxes, *, size, scores=None):
    """Returns instances of (class, x, y, width, height), with boxes and full masks."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    found = Instances(size, pred_classes=table[:, 0].long())
    found.pred_boxes = Boxes(torch.cat([table[:, 1:3], table[:, 1:3] + table[:, 3:]], dim=1))
    found.scores = torch.linspace(1, 0.5, len(table)) if scores is None else torch.as_tensor(scores)
    found.pred_masks = torch.zeros(len(table), *size, dtype=torch.bool)
    for mask, box in zip(found.pred_masks, found.pred_boxes.tensor.round().int().tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = True
    return found


def evaluate(evaluator, found, img_ids=None):
    """Evaluates the detections of images 1, 2, ..."""
    evaluator.reset()
    for image_id, instances in enumerate(found, 1):
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate(img_ids)


def same(found, expected):
    assert found.keys() == expected.keys()
    for task in expected:
        assert found[task] == pytest.approx(expected[task], abs=1e-6, nan_ok=True)


ORDINARY_SIZE = (240, 320)


def ordinary(num_images=4):
    """Objects of all sizes and two of three classes, and detections that have missed, moved and invented some."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for image in range(num_images):
        sides = rng.choice([12, 25, 60, 110], size=(6, 2))
        corners = rng.integers(0, np.subtract(ORDINARY_SIZE[::-1], sides))
        classes = rng.integers(0, 2, 6)
        truth.append([[int(v) for v in row] for row in np.column_stack([classes, corners, sides])])
        moved = np.repeat(np.array(truth[-1], dtype=float), 2, axis=0)
        moved[:, 1:] += rng.normal(0, 2, (12, 4)).round()
        moved[::5, 0] = 2
        # None in one image, and in another as many as COCO counts.
        moved = np.resize(moved, ([12, 100, 0, 7][image % 4], 5))
        found.append(detections(moved, size=ORDINARY_SIZE, scores=rng.random(len(moved)).astype(np.float32)))
    return truth, found


@pytest.mark.parametrize("fast", [False, True])
def test_ordinary_numbers_are_those_of_detectron2(tmp_path, fast):
    truth, found = ordinary()
    name = register(tmp_path / "truth.json", truth, size=ORDINARY_SIZE)
    options = {"distributed": False, "use_fast_impl": fast}
    stock = evaluate(evaluation.COCOEvaluator(name, **options), found)
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-c10", "AP-c20", "AP-c30"} == stock["segm"].keys()
    assert 0 < stock["segm"]["AP"] < stock["bbox"]["AP50"] < 100
    assert stock["segm"]["APl"] > 0
    assert math.isnan(stock["segm"]["AP-c30"])
    same(evaluate(COCOEvaluator(name, **options), found), stock)
    some = evaluate(evaluation.COCOEvaluator(name, **options), found, img_ids=[1, 3])
    assert some["bbox"]["AP"] != stock["bbox"]["AP"]
    same(evaluate(COCOEvaluator(name, **options), found, img_ids=[1, 3]), some)


DENSE_SIZE = (150, 200)
DENSE = [[i % 3, 10 * (i % 20), 10 * (i // 20), 6, 6] for i in range(300)]


@pytest.fixture
def log(caplog):
    """Captures the evaluator's messages, for any configuration of Detectron2's loggers."""
    logger = logging.getLogger(evaluation.COCOEvaluator.__module__)
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger=logger.name):
        yield caplog
    logger.removeHandler(caplog.handler)


def test_all_of_300_perfect_detections_count(tmp_path, log):
    name = register(tmp_path / "truth.json", [[[0, *box[1:]] for box in DENSE]], size=DENSE_SIZE, classes=1)
    found = [detections([[0, *box[1:]] for box in DENSE], size=DENSE_SIZE)]
    stock = evaluate(evaluation.COCOEvaluator(name, **PLAIN), found)
    assert stock["bbox"]["AP"] == pytest.approx(100 * 34 / 101)  # 100 found reach 34 of the 101 recalls
    ours = COCOEvaluator(name, **PLAIN)
    for task, metrics in evaluate(ours, found).items():
        assert {task: metrics["AP"], "small": metrics["APs"]} == {task: 100.0, "small": 100.0}
    assert "Up to 300 boxes and masks" in log.text
    log.clear()
    same(evaluate(ours, [found[0][:70]]), evaluate(evaluation.COCOEvaluator(name, **PLAIN), [found[0][:70]]))
    assert "Up to 100 boxes and masks" in log.text


def test_the_limit_is_that_of_the_largest_image_over_all_classes(tmp_path, log):
    name = register(tmp_path / "truth.json", [DENSE[:20], DENSE], size=DENSE_SIZE)
    found = [detections(DENSE[:20], size=DENSE_SIZE), detections(DENSE, size=DENSE_SIZE)]
    results = evaluate(COCOEvaluator(name, **PLAIN), found)
    assert [results["segm"][f"AP-c{i}"] for i in (10, 20, 30)] == [100.0] * 3
    assert "Up to 300 boxes and masks" in log.text


@pytest.mark.parametrize("limit", [100, 150])
def test_a_limit_that_is_given_is_kept(tmp_path, log, limit):
    name = register(tmp_path / "truth.json", [[[0, *box[1:]] for box in DENSE]], size=DENSE_SIZE, classes=1)
    found = [detections([[0, *box[1:]] for box in DENSE], size=DENSE_SIZE)]
    options = {**PLAIN, "max_dets_per_image": limit}
    ours = evaluate(COCOEvaluator(name, **options), found)
    assert ours["bbox"]["AP"] < 51
    same(ours, evaluate(evaluation.COCOEvaluator(name, **options), found))
    assert f"Up to {limit} boxes and masks" in log.text


def nothing(num_images, size=ORDINARY_SIZE):
    return [detections([], size=size) for _ in range(num_images)]


def test_no_prediction_scores_as_a_wrong_one(tmp_path):
    truth, _ = ordinary()
    name = register(tmp_path / "truth.json", truth, size=ORDINARY_SIZE)
    wrong = nothing(4)
    wrong[0] = detections([[2, 0, 0, 1, 1]], size=ORDINARY_SIZE)
    expected = evaluate(evaluation.COCOEvaluator(name, **PLAIN), wrong)
    assert expected["segm"]["AP"] == expected["segm"]["APl"] == expected["segm"]["AP-c10"] == 0
    assert math.isnan(expected["segm"]["AP-c30"])
    ours = COCOEvaluator(name, output_dir=str(tmp_path / "out"), **PLAIN)
    same(evaluate(ours, nothing(4)), expected)
    assert json.loads((tmp_path / "out" / "coco_instances_results.json").read_text()) == []
    same(evaluate(ours, wrong), expected)
    assert len(json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())) == 1


def test_no_prediction_in_the_chosen_images(tmp_path):
    name = register(tmp_path / "truth.json", [[[0, 5, 5, 20, 20]], [[1, 5, 5, 60, 60]]], size=ORDINARY_SIZE)
    found = evaluate(COCOEvaluator(name, **PLAIN), nothing(2), img_ids=[1])["segm"]
    assert {metric: value for metric, value in found.items() if not math.isnan(value)} == dict.fromkeys(
        ("AP", "AP50", "AP75", "APs", "AP-c10"), 0.0
    )


def test_no_prediction_of_keypoints(people, tmp_path):
    get_dataset_dicts(people)
    results = evaluate(COCOEvaluator(people, **PLAIN), nothing(6, SIZE))
    assert list(results) == ["bbox", "keypoints", "segm"]
    assert results["keypoints"]["AP"] == 0
    # As many points as a team has, of one object that is neither small nor large.
    name = register(tmp_path / "truth.json", [[[0, 5, 5, 40, 40]]], size=ORDINARY_SIZE, classes=1, keypoints=4)
    results = evaluate(COCOEvaluator(name, kpt_oks_sigmas=[0.1] * 4, **PLAIN), nothing(1))
    expected = {"AP": 0, "AP50": 0, "AP75": 0, "APm": 0, "APl": math.nan}
    assert results["keypoints"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("tasks", [("bbox",), ("segm",), ("segm", "bbox")])
def test_tasks_that_are_given_are_all(tmp_path, tasks):
    truth, found = ordinary()
    name = register(tmp_path / "truth.json", truth, size=ORDINARY_SIZE, keypoints=17)
    for instances in found:
        instances.pred_mask_scores = instances.scores
    ours = COCOEvaluator(name, tasks, **PLAIN)
    assert evaluate(ours, found).keys() == set(tasks)
    results = evaluate(ours, nothing(4))
    assert results.keys() == set(tasks)
    assert {metrics["AP"] for metrics in results.values()} == {0.0}


@pytest.mark.parametrize("left_out", ["segmentation", "annotations"])
def test_tasks_that_the_ground_truth_does_not_allow_are_not_zero(tmp_path, left_out):
    truth, _ = ordinary()
    name = register(tmp_path / "truth.json", truth, size=ORDINARY_SIZE, leave_out={left_out})
    output_dir = str(tmp_path / "out")
    inferred = evaluate(COCOEvaluator(name, output_dir=output_dir, **PLAIN), nothing(4))
    explicit = evaluate(COCOEvaluator(name, ("bbox", "segm"), output_dir=output_dir, **PLAIN), nothing(4))
    if left_out == "annotations":  # a test set: only the file is wanted
        assert inferred == explicit == {}
    else:
        assert inferred.keys() == {"bbox"}
        assert math.isnan(explicit["segm"]["AP"])
        assert inferred["bbox"]["AP"] == 0
    assert json.loads((tmp_path / "out" / "coco_instances_results.json").read_text()) == []


@pytest.mark.parametrize("outline", [[], None])
def test_one_object_without_an_outline_leaves_the_boxes(tmp_path, outline):
    name = register(tmp_path / "truth.json", [[[0, 5, 5, 20, 20], [1, 50, 50, 20, 20]]], size=ORDINARY_SIZE)
    data = json.loads((tmp_path / "truth.json").read_text())
    data["annotations"][1]["segmentation"] = outline
    (tmp_path / "truth.json").write_text(json.dumps(data))
    results = evaluate(COCOEvaluator(name, **PLAIN), nothing(1))
    assert {task: metrics["AP"] for task, metrics in results.items()} == {"bbox": 0.0}


def test_nothing_to_find_and_nothing_found_is_nan(tmp_path):
    name = register(tmp_path / "truth.json", [[], []], size=ORDINARY_SIZE)
    results = evaluate(COCOEvaluator(name, **PLAIN), nothing(2))
    assert results.keys() == {"bbox"}
    assert all(math.isnan(value) for value in results["bbox"].values())


def test_a_batch_may_have_outputs_of_other_kinds(people, tmp_path):
    get_dataset_dicts(people)
    ours = COCOEvaluator(people, output_dir=str(tmp_path), **PLAIN)
    ours.reset()
    scored = detections([[0, 5, 5, 20, 20]], size=SIZE)
    scored.pred_mask_scores = torch.tensor([0.25])
    ours.process([{"image_id": 1}, {"image_id": 2}], [{"instances": scored}, {"sem_seg": torch.zeros(1)}])
    ours.process([], [])
    assert ours.evaluate()["bbox"]["AP"] == 0
    assert [one["mask_score"] for one in json.loads((tmp_path / "coco_instances_results.json").read_text())] == [0.25]


def test_it_is_one_override_of_a_config(people, tmp_path):
    get_dataset_dicts(people)
    cfg = LazyConfig.load(str(Path(__file__).parents[2] / "configs/common/data/coco.py"))
    LazyConfig.apply_overrides(
        cfg,
        [
            "dataloader.evaluator._target_=maskrcnn_ext.COCOEvaluator",
            f"dataloader.evaluator.dataset_name={people}",
            f"dataloader.evaluator.output_dir={tmp_path}",
            "dataloader.evaluator.max_dets_per_image=200",
        ],
    )
    assert isinstance(instantiate(cfg.dataloader.evaluator), COCOEvaluator)
    node = {"_target_": "maskrcnn_ext.COCOEvaluator", "dataset_name": people, "max_det_per_image": 200}
    assert "did you mean max_dets_per_image" in "".join(node_faults("dataloader.evaluator", node))


def test_the_evaluation_holds_the_masks_of_one_image(tmp_path):
    """Ten times as many images take hardly more memory, where the masks of all would take ten times as much."""
    pytest.importorskip("hotcoco")
    noise = np.random.default_rng(0).integers(0, 2, (100, 100), dtype=np.uint8)
    counts = mask_util.encode(np.asfortranarray(noise))["counts"]
    peaks = []
    for number in (4, 40):
        name = register(tmp_path / f"{number}.json", [[[0, 5, 5, 20, 20]]] * number, size=(100, 100), classes=1)
        ours = COCOEvaluator(name, distributed=False)
        tracemalloc.start()
        ours.reset()
        for image_id in range(1, number + 1):
            found = detections([[0, 5, 5, 20, 20]] * 30, size=(100, 100))
            found.remove("pred_masks")
            # As from a model: each mask is memory that no other has.
            found.pred_masks = RLEMasks(
                [{"size": [100, 100], "counts": bytes(bytearray(counts))} for _ in range(30)], (100, 100)
            )
            ours.process([{"image_id": image_id}], [{"instances": found}])
        assert ours.evaluate()["segm"]["AP"] == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    masks = 30 * len(counts)
    assert peaks[0] > masks, "those of an image are in memory"
    assert peaks[1] - peaks[0] < 5 * masks < 36 * masks


def test_predictions_of_an_image_that_the_data_set_lacks_are_one_line(tmp_path):
    name = register(tmp_path / "truth.json", [[[0, 5, 5, 20, 20]]], size=ORDINARY_SIZE)
    found = detections([[0, 5, 5, 20, 20]], size=ORDINARY_SIZE)
    with pytest.raises(InputError, match=f"of image 2, which data set {name} does not have"):
        evaluate(COCOEvaluator(name, **PLAIN), [found, found])
    assert evaluate(COCOEvaluator(name, **PLAIN), [found, *nothing(1)])["bbox"]["AP"] == pytest.approx(100)


def test_masks_that_are_rles_are_taken_as_they_are(tmp_path):
    truth, found = ordinary()
    name = register(tmp_path / "truth.json", truth, size=ORDINARY_SIZE)
    expected = evaluate(COCOEvaluator(name, output_dir=str(tmp_path / "dense"), **PLAIN), found)
    for instances in found:
        masks = instances.pred_masks.numpy().astype(np.uint8)
        rles = [mask_util.encode(np.asfortranarray(mask)) for mask in masks]
        instances.remove("pred_masks")
        instances.pred_masks = RLEMasks(rles, ORDINARY_SIZE)
        # Not even one at a time.
        instances.pred_masks.__class__ = type("Sealed", (RLEMasks,), {"__iter__": None, "to_dense": None})
    same(evaluate(COCOEvaluator(name, output_dir=str(tmp_path / "rle"), **PLAIN), found), expected)
    files = [tmp_path / folder / "coco_instances_results.json" for folder in ("dense", "rle")]
    assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())


def test_a_second_evaluation_returns_the_same_and_outputs_are_not_changed(tmp_path):
    truth, found = ordinary()
    name = register(tmp_path / "truth.json", truth, size=ORDINARY_SIZE, keypoints=17)
    for instances in found:
        instances.pred_keypoints = instances.pred_boxes.get_centers()[:, None].repeat(1, 17, 1)
        instances.pred_keypoints = torch.cat([instances.pred_keypoints, torch.ones(len(instances), 17, 1)], dim=2)
    before = found[0].pred_keypoints.clone()
    ours = COCOEvaluator(name, output_dir=str(tmp_path), **PLAIN)
    first = evaluate(ours, found)
    written = (tmp_path / "coco_instances_results.json").read_text()
    assert first["keypoints"]["AP"] > 0
    same(ours.evaluate(), first)
    assert (tmp_path / "coco_instances_results.json").read_text() == written
    assert torch.equal(found[0].pred_keypoints, before)


@pytest.mark.parametrize("left_out", [{"area"}, {"iscrowd"}, {"area", "iscrowd"}])
def test_missing_fields_of_the_ground_truth_are_filled_in(tmp_path, left_out):
    truth, found = ordinary()
    expected = evaluate(COCOEvaluator(register(tmp_path / "a.json", truth, size=ORDINARY_SIZE), **PLAIN), found)
    name = register(tmp_path / "b.json", truth, size=ORDINARY_SIZE, leave_out=left_out)
    same(evaluate(COCOEvaluator(name, **PLAIN), found), expected)


def test_annotation_ids_may_begin_at_0(tmp_path):
    name = register(tmp_path / "truth.json", [[[0, 5, 5, 20, 20]]], size=ORDINARY_SIZE, classes=1)
    data = json.loads((tmp_path / "truth.json").read_text())
    data["annotations"][0]["id"] = 0
    (tmp_path / "truth.json").write_text(json.dumps(data))
    found = [detections([[0, 5, 5, 20, 20]], size=ORDINARY_SIZE)]
    assert evaluate(evaluation.COCOEvaluator(name, **PLAIN), found)["bbox"]["AP"] == 0
    assert evaluate(COCOEvaluator(name, **PLAIN), found)["bbox"]["AP"] == pytest.approx(100)


def test_the_file_of_an_earlier_run_is_not_taken_for_the_data(tmp_path):
    box = [5.0, 5.0, 25.0, 25.0]
    records = [{"file_name": "1.png", "image_id": 1, "height": 64, "width": 96, "annotations": []}]
    records[0]["annotations"].append({"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0})
    name = f"test_coco_evaluator_{next(NAMES)}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=["disc"])
    found = [detections([[0, 5, 5, 20, 20]], size=SIZE)]
    found[0].remove("pred_masks")
    output_dir = str(tmp_path / "out")
    stock = evaluation.COCOEvaluator(name, output_dir=output_dir, **PLAIN)
    assert evaluate(stock, found)["bbox"]["AP"] == pytest.approx(100)
    del MetadataCatalog.get(name).json_file  # as in another process
    box[:] = [50.0, 40.0, 70.0, 60.0]
    ours = COCOEvaluator(name, output_dir=output_dir, **PLAIN)
    assert evaluate(ours, found)["bbox"]["AP"] == 0
    assert not hasattr(MetadataCatalog.get(name), "json_file")
    content = json.loads(Path(output_dir, f"{name}_coco_format.json").read_text())
    assert content["annotations"][0]["bbox"] == [50, 40, 20, 20]
    assert evaluate(COCOEvaluator(name, **PLAIN), found)["bbox"]["AP"] == 0, (
        "without a folder, a temporary file is used"
    )


def test_mistakes_are_one_line(tmp_path):
    name = register(tmp_path / "truth.json", [[[0, 5, 5, 20, 20]]], size=ORDINARY_SIZE, leave_out={"segmentation"})
    found = [detections([[0, 5, 5, 20, 20]], size=ORDINARY_SIZE)]
    assert evaluate(COCOEvaluator(name, **PLAIN), found).keys() == {"bbox"}
    with pytest.raises(InputError, match="segm is one of its tasks, but some objects of the dataset have no `segm"):
        evaluate(COCOEvaluator(name, ("segm",), **PLAIN), found)
    with pytest.raises(InputError, match="unknown task 'mask'"):
        evaluate(COCOEvaluator(name, ("mask",), **PLAIN), found)
    with pytest.raises(InputError, match=r"has 3 classes: set model.roi_heads.num_classes=3"):
        evaluate(COCOEvaluator(name, **PLAIN), [detections([[7, 5, 5, 20, 20]], size=ORDINARY_SIZE)])
    (tmp_path / "truth.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1}]}')
    with pytest.raises(InputError, match="category 1 has no `name`"):
        COCOEvaluator(name, **PLAIN)


def test_own_keypoints_take_the_sigmas_they_were_registered_with(tmp_path):
    name = register(tmp_path / "truth.json", [[[0, 5, 5, 40, 40]]], size=ORDINARY_SIZE, classes=1, keypoints=4)
    found = [detections([[0, 5, 5, 40, 40]], size=ORDINARY_SIZE)]
    found[0].pred_keypoints = torch.tensor([[[6.5, 6.5, 1.0]] * 4])
    with pytest.raises(InputError, match="sigma for each of the 4 keypoints"):
        evaluate(COCOEvaluator(name, **PLAIN), found)
    MetadataCatalog.get(name).set(keypoint_oks_sigmas=[0.1] * 4)
    assert evaluate(COCOEvaluator(name, **PLAIN), found)["keypoints"]["AP"] == pytest.approx(100)


def two_rank_data(file, kind):
    """Ordinary images and, for the second rank, one with 300 detections; or the same images and no detection."""
    truth, found = ordinary(5)
    name = register(file, [*truth, DENSE], size=ORDINARY_SIZE)
    return name, [*found, detections(DENSE, size=ORDINARY_SIZE)] if kind == "found" else nothing(6)


def work(rank, folder, kind):
    """Evaluates every second image in one of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    name, found = two_rank_data(Path(folder, f"truth_{rank}.json"), kind)
    evaluator = COCOEvaluator(name, output_dir=f"{folder}/two")
    evaluator.reset()
    for index in range(rank, len(found), 2):
        evaluator.process([{"image_id": index + 1}], [{"instances": found[index]}])
    Path(folder, f"{rank}.json").write_text(json.dumps(evaluator.evaluate()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["found", "nothing"])
def test_two_ranks_have_the_numbers_of_one(tmp_path, kind):
    torch.multiprocessing.spawn(work, (str(tmp_path), kind), nprocs=2)
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert other == {}
    name, found = two_rank_data(tmp_path / "truth.json", kind)
    one = evaluate(COCOEvaluator(name, output_dir=str(tmp_path / "one"), **PLAIN), found)
    assert (one["segm"]["AP"] > 0) == (kind == "found")
    same(main, one)

    def written(folder):
        results = json.loads((tmp_path / folder / "coco_instances_results.json").read_text())
        return sorted(results, key=lambda result: result["image_id"])  # of an image in order, as sorting is stable

    assert written("two") == written("one")
    assert len(written("one")) == sum(map(len, found))


def test_categories_are_those_of_the_file_before_the_data_is_read(tmp_path):
    content = {
        "images": [{"id": 1, "height": 40, "width": 40, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    evaluator = COCOEvaluator(f"coco:{tmp_path}/a.json@{tmp_path}", **PLAIN)
    assert {"bbox/AP", "bbox/AP-cat", "bbox/AP-dog"} <= evaluator.metric_names()

    def predicted(index):
        found = Instances((40, 40), pred_boxes=Boxes(torch.tensor([[5.0, 5, 25, 25]])), scores=torch.ones(1))
        found.pred_classes = torch.tensor([index])
        return found

    def measure(evaluator, index):
        evaluator.reset()
        evaluator.process([{"image_id": 1, "height": 40, "width": 40}], [{"instances": predicted(index)}])
        return evaluator.evaluate()["bbox"]

    # Detectron2 sorts by id: dog is 0 and cat is 1.
    assert measure(evaluator, 1)["AP-cat"] == pytest.approx(100)
    with pytest.raises(InputError, match=r"class 2, but .* has 2 classes"):
        measure(evaluator, 2)
    by_name = COCOEvaluator(f"coco:{tmp_path}/a.json@{tmp_path}", classes=["cow", "dog", "cat"], **PLAIN)
    assert measure(by_name, 2)["AP-cat"] == pytest.approx(100)
    assert measure(by_name, 0)["AP-cat"] == 0, "a class that the data set does not have"
