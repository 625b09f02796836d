"""Predictions serve programs and notebooks, and other tools take them as they take those of Detectron2's DefaultPredictor."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image

from maskrcnn_ext import InputError, Predictor, TiledPredictor
from maskrcnn_ext.inference.outputs.overlays import draw_overlay
from maskrcnn_ext.inference.predictions import Predictions
from maskrcnn_ext.inference.results import to_coco
from tests.helpers.predicted_images import CLASSES, instances, predicted

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
MASKS = np.zeros((3, 40, 60), bool)
MASKS[0, 5:20, 5:25], MASKS[1, 22:38, 30:50], MASKS[2, 2:8, 40:58] = True, True, True


@pytest.fixture
def predictions():
    return Predictions.of(instances(MASKS), CLASSES, IMAGE)


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run, device="cpu")


def test_records_are_rows_of_a_table(predictions):
    predictions.track_ids = torch.tensor([4, 5, 6])
    first, second, _ = predictions.records()
    box = {"x0": 5.0, "y0": 5.0, "x1": 25.0, "y1": 20.0}
    assert first == {"class": "cat/dog", "score": pytest.approx(0.9), **box, "area": 300, "track_id": 4}
    assert second["class"] == "b"
    assert Predictions.of(instances(MASKS), CLASSES, "a.png").records()[0]["image"] == "a.png"
    assert predictions[:0].records() == []


def test_selected_objects_keep_classes_and_image(predictions):
    chosen = predictions[predictions.scores > 0.7].to("cpu")
    assert chosen.class_names == ["cat/dog", "b"]
    assert repr(chosen) == "Predictions(40 x 60: 1 cat/dog, 1 b)"
    assert repr(chosen[:0]) == "Predictions(40 x 60: none)"
    assert chosen.plot().size == (60, 40)
    assert predictions["instances"] is predictions
    with pytest.raises(KeyError):
        predictions["boxes"]
    copy = pickle.loads(pickle.dumps(predictions))
    assert copy.records() == predictions.records()


def test_the_plot_is_the_overlay_of_the_command_line(predictions):
    shown = draw_overlay(predicted(instances(MASKS), IMAGE))[:, :, ::-1]
    np.testing.assert_array_equal(np.asarray(predictions.plot()), shown)
    rgb = Image.fromarray(np.ascontiguousarray(IMAGE[:, :, ::-1]))
    np.testing.assert_array_equal(np.asarray(predictions.plot(rgb)), shown)
    high = draw_overlay(predicted(instances(MASKS)[:2], IMAGE))[:, :, ::-1]
    np.testing.assert_array_equal(np.asarray(predictions.plot(threshold=0.7)), high)
    with pytest.raises(InputError, match="pass it"):
        Predictions.of(instances(MASKS), CLASSES).plot()
    with pytest.raises(InputError, match="but had"):
        predictions.plot(IMAGE[:10])


def test_a_predictor_leaves_out_low_scores(predictor, photo):
    every = predictor(photo)
    limit = every.scores.median().item()
    some = predictor(photo, threshold=limit)
    assert 0 < len(some) < len(every)
    assert (some.scores >= limit).all()
    (streamed,) = predictor.predict([photo], threshold=limit)
    assert streamed.records() == some.records()
    assert streamed.records()[0]["image"] == str(photo)
    tiled = TiledPredictor(predictor, tile=48)(photo, threshold=limit)
    assert (tiled.scores >= limit).all()
    for found in (some, streamed, tiled):
        assert found.plot().size == (96, 96)
    with pytest.raises(InputError, match="threshold=50"):
        predictor(photo, threshold=50)


def test_streamed_arrays_are_not_kept(predictor):
    (found,) = predictor.predict([np.zeros((50, 40, 3), np.uint8)])
    with pytest.raises(InputError, match="not kept"):
        found.plot()


def test_a_predictor_is_short_in_a_notebook(predictor, run):
    assert repr(predictor).startswith("Predictor(GeneralizedRCNN of ")
    assert len(repr(predictor)) < 200 + len(str(run))


@pytest.mark.parametrize("mode", [ColorMode.IMAGE, ColorMode.IMAGE_BW])
def test_detectron2s_visualizer_draws_them_as_dense_masks(predictions, mode):
    def draw(found):
        np.random.seed(0)  # the Visualizer draws colours at random
        drawer = Visualizer(IMAGE, Metadata(thing_classes=list(CLASSES.names)), instance_mode=mode)
        return drawer.draw_instance_predictions(found).get_image()

    fields = {**predictions.get_fields(), "pred_masks": torch.from_numpy(MASKS)}
    np.testing.assert_array_equal(draw(predictions), draw(Instances((40, 60), **fields)))


def test_the_conversion_that_fiftyone_documents(predictions):
    """FiftyOne's tutorial on Detectron2 crops each mask to its box."""
    found = predictions["instances"].to("cpu")
    crops = [
        mask.numpy()[int(y0) : int(y1), int(x0) : int(x1)]
        for (x0, y0, x1, y1), mask in zip(found.pred_boxes, found.pred_masks, strict=True)
    ]
    assert [crop.shape for crop in crops] == [(15, 20), (16, 20), (6, 18)]
    assert all(crop.all() for crop in crops)


def drawn_by_fiftyone(detection, truth):
    """Checks the mask that FiftyOne draws. It rounds relative boxes, so that a row or a column may be missing."""
    drawn = detection.to_segmentation(frame_size=(60, 40)).mask > 0
    assert (drawn & truth).sum() == drawn.sum() > 0.8 * truth.sum()


def test_fiftyone_takes_the_crops_of_its_tutorial(predictions):
    labels = pytest.importorskip("fiftyone.core.labels")
    masks = predictions["instances"].pred_masks
    for (x0, y0, x1, y1), mask, truth in zip(predictions.pred_boxes, masks, MASKS, strict=True):
        box = [float(x0) / 60, float(y0) / 40, float(x1 - x0) / 60, float(y1 - y0) / 40]
        crop = mask.numpy()[int(y0) : int(y1), int(x0) : int(x1)]
        drawn_by_fiftyone(labels.Detection(label="cat", bounding_box=box, mask=crop, confidence=0.9), truth)


def test_fiftyone_takes_the_results_file(predictions):
    coco = pytest.importorskip("fiftyone.utils.coco")
    names = dict(zip(CLASSES.category_ids, CLASSES.names, strict=True))
    for result, truth in zip(to_coco(predictions, 1, CLASSES.category_ids), MASKS, strict=True):
        expected = (names[result["category_id"]], result["score"])
        taken = coco.COCOObject.from_anno_dict(result).to_detection((60, 40), classes_map=names, load_segmentation=True)
        assert (taken.label, taken.confidence) == expected
        drawn_by_fiftyone(taken, truth)


def test_supervision_takes_them(predictions):
    supervision = pytest.importorskip("supervision")
    for found in (predictions, predictions[:0]):
        taken = supervision.Detections.from_detectron2(found)
        np.testing.assert_array_equal(taken.mask, MASKS[: len(found)])
        np.testing.assert_array_equal(taken.xyxy, found.pred_boxes.tensor.numpy())
        np.testing.assert_array_equal(taken.confidence, found.scores.numpy())
        assert taken.class_id.tolist() == found.pred_classes.tolist()
    without = Predictions.of(Instances((40, 60), **{**predictions.get_fields()}), CLASSES)
    without.remove("pred_masks")
    assert supervision.Detections.from_detectron2(without).mask is None


def test_sahi_slices_with_a_predictor(predictor, photo):
    pytest.importorskip("sahi")
    from sahi.models.detectron2 import Detectron2DetectionModel
    from sahi.predict import get_sliced_prediction

    names = {str(index): name for index, name in enumerate(predictor.classes.names)}
    model = Detectron2DetectionModel(load_at_init=False, category_mapping=names, confidence_threshold=0.0)
    model.model, model.category_names = predictor, list(names.values())
    image = cv2.imread(str(photo))[:, :, ::-1]
    found = get_sliced_prediction(image, model, slice_height=200, slice_width=200, perform_standard_pred=False)
    whole = predictor(photo)
    # One slice holds the whole image; SAHI drops empty masks and merges overlapping objects of a class.
    assert 0 < len(found.object_prediction_list) <= len(whole)
    areas = sorted(one.mask.bool_mask.sum() for one in found.object_prediction_list)
    assert areas[-1] >= whole.pred_masks.areas().max() * 0.9
