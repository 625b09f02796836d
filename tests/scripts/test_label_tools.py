"""The examples for label tools: a CVAT function and a Label Studio backend, on a small model."""

import json
import logging
import threading
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import Predictor
from maskrcnn_ext.ops.tool_rle import decode_brush
from scripts.label_studio_backend import Backend, serve
from tests.inference.conftest import photo, run, spec  # noqa: F401 (fixtures)

INTERFACE = (
    '<View><Image name="img" value="$image"/><BrushLabels name="b" toName="img"><Label value="x"/></BrushLabels></View>'
)


@pytest.fixture
def predictor(run):
    return Predictor(run, device="cpu")


def test_the_backend_answers_label_studio(predictor, photo):
    server = serve(Backend(predictor, photo.parent, 0.1), port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def ask(path, request=None):
        data = None if request is None else json.dumps(request).encode()
        with urlopen(Request(f"http://127.0.0.1:{server.server_port}{path}", data), timeout=60) as reply:
            return json.load(reply)

    try:
        assert ask("/health")["status"] == "UP"
        assert ask("/setup", {})["model_version"] == "model_final.pth"
        task = {"id": 1, "data": {"image": f"/data/upload/1/0123abcd-{photo.name}"}}
        assert ask("/is_training?project=1") == {"is_training": False}
        answer = ask("/predict", {"tasks": [task], "label_config": INTERFACE})
        (result,) = answer["results"]
        assert answer["model_version"] == "model_final.pth"
        with pytest.raises(HTTPError) as error:
            ask("/predict", {"tasks": [task]})
        assert "no <BrushLabels>" in json.load(error.value)["error"]
        for broken in ([], {"tasks": 3}, {"tasks": [{"id": 1}], "label_config": INTERFACE}):
            with pytest.raises(HTTPError) as error:
                ask("/predict", broken)
            assert error.value.code == 400
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    found = predictor(photo, threshold=0.1)
    assert [region["value"]["brushlabels"] for region in result["result"]] == [[name] for name in found.class_names]
    for region, mask in zip(result["result"], found.pred_masks, strict=True):
        assert (region["from_name"], region["to_name"]) == ("b", "img")
        size = region["original_height"], region["original_width"]
        np.testing.assert_array_equal(decode_brush(region["value"]["rle"], *size), mask.numpy())


def test_label_studio_accepts_the_predictions(predictor, photo):
    """label-studio-sdk's own check of a prediction against the labelling interface, and its decoder of brushes."""
    pytest.importorskip("label_studio_sdk")
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    found = predictor(photo, threshold=0.1)
    labels = "".join(f'<Label value="{name}"/>' for name in predictor.classes.names)
    interface = INTERFACE.replace('<Label value="x"/>', labels)
    request = {"tasks": [{"id": 1, "data": {"image": photo.name}}], "label_config": interface}
    (prediction,) = Backend(predictor, photo.parent, 0.1).answer("/predict", request)["results"]
    assert LabelInterface(interface).validate_prediction(prediction, return_errors=True) == []
    assert len(prediction["result"]) == len(found) > 0
    for region, mask in zip(prediction["result"], found.pred_masks, strict=True):
        alpha = decode_rle(region["value"]["rle"]).reshape(*mask.shape, 4)[:, :, 3]
        np.testing.assert_array_equal(alpha > 0, mask.numpy())


@pytest.mark.parametrize("polygons", [False, True])
def test_cvat_annotates_a_task_with_the_models_objects(run, predictor, photo, polygons, monkeypatch):
    """cvat-sdk's own driver, on a task whose images and labels are here instead of on a server."""
    cvat_sdk = pytest.importorskip("cvat_sdk")
    from cvat_sdk.auto_annotation import driver
    from cvat_sdk.masks import decode_mask

    from scripts.cvat_function import create

    names = list(predictor.classes.names)
    labels = [
        SimpleNamespace(name=name, id=100 + index, type="any", attributes=[], sublabels=[])
        for index, name in enumerate(names)
    ]
    image = Image.open(photo)
    sample = SimpleNamespace(frame_name=photo.name, frame_index=7, media=SimpleNamespace(load_image=lambda: image))
    task = SimpleNamespace(labels=labels, samples=[sample])
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: task)
    uploads = []
    api = SimpleNamespace(update_annotations=lambda _, labeled_data_request: uploads.append(labeled_data_request))
    client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    function = create(run=str(run), device="cpu")
    for threshold in (0.1, 1.0):
        cvat_sdk.auto_annotation.annotate_task(
            client, 1, function, clear_existing=True, conf_threshold=threshold, conv_mask_to_poly=polygons
        )
    shapes, nothing = (upload.shapes for upload in uploads)
    assert nothing == []
    found = predictor(photo, threshold=0.1)
    masks = [(label, mask.numpy()) for label, mask in zip(found.pred_classes.tolist(), found.pred_masks, strict=True)]
    masks = [(label, mask) for label, mask in masks if mask.any()]
    assert masks
    assert {shape.frame for shape in shapes} == {7}
    if polygons:
        assert {shape.type.value for shape in shapes} == {"polygon"}
        assert len(shapes) >= len(masks)
        return
    for shape, (label, mask) in zip(shapes, masks, strict=True):
        assert shape.label_id == 100 + label
        decoded = decode_mask(shape.points, image_width=image.width, image_height=image.height)
        np.testing.assert_array_equal(decoded, mask)
