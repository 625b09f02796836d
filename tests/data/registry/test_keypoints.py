"""Training, prediction, OKS and pictures use the skeleton with which a data set is registered."""

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.transforms import RandomFlip
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from maskrcnn_ext import COCOEvaluator, InputError, get_config, get_dataset_dicts, load_dataset
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.registry.catalog import register
from maskrcnn_ext.data.registry.keypoints import Skeleton, check_sigmas, hflip_indices
from maskrcnn_ext.report.draw import draw_skeleton

NAMES = ("nose", "left_ear", "right_ear", "tail_base", "tail_tip")
LINKS = (("nose", "left_ear"), ("nose", "right_ear"), ("nose", "tail_base"), ("tail_base", "tail_tip"))
SIGMAS = (0.03, 0.05, 0.05, 0.08, 0.1)
MOUSE = Skeleton(NAMES, sigmas=SIGMAS, links=LINKS)


@pytest.fixture(scope="module")
def mice(tmp_path_factory):
    """A COCO file without names of keypoints, as many tools write it, of four images with two mice each."""
    folder = tmp_path_factory.mktemp("mice")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, 5):
        cv2.imwrite(str(folder / f"{image_id}.png"), rng.integers(0, 255, (64, 96, 3), dtype=np.uint8))
        images.append({"id": image_id, "file_name": f"{image_id}.png", "height": 64, "width": 96})
        for x in (4, 50):
            y, width, height = 10 + 3 * image_id, 40, 30
            points = np.stack([rng.uniform(x, x + width, 5), rng.uniform(y, y + height, 5), np.full(5, 2.0)], axis=1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 7,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "keypoints": points.round(1).ravel().tolist(),
                    "num_keypoints": 5,
                }
            )
    file = folder / "mice.json"
    categories = [{"id": 7, "name": "mouse"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def forget(name):
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def registered(mice):
    """The one call that a team writes."""
    register("mice", format="coco", json=mice, images=mice.parent, skeleton=MOUSE)
    yield "mice"
    forget("mice")


def test_metadata_is_known_before_anything_is_read(tmp_path):
    register("unread_mice", format="coco", json=tmp_path / "no.json", images=tmp_path, skeleton=MOUSE)
    try:
        metadata = MetadataCatalog.get("unread_mice")
        assert metadata.keypoint_names == list(NAMES)
        assert metadata.keypoint_flip_map == [("left_ear", "right_ear")]
        assert [rule[:2] for rule in metadata.keypoint_connection_rules] == list(LINKS)
        assert all(len(color) == 3 and max(color) <= 255 for _, _, color in metadata.keypoint_connection_rules)
        assert metadata.keypoint_oks_sigmas == list(SIGMAS)
        assert hflip_indices("unread_mice") == [0, 2, 1, 3, 4]
        register("unread_mice", format="coco", json=tmp_path / "no.json", images=tmp_path, skeleton=MOUSE)
        other = Skeleton(NAMES, links=LINKS)
        with pytest.raises(InputError, match="registered already"):
            register("unread_mice", format="coco", json=tmp_path / "no.json", images=tmp_path, skeleton=other)
    finally:
        forget("unread_mice")


def test_it_is_read_and_written_with_the_data(registered):
    assert len(get_dataset_dicts(registered, min_keypoints=1)) == 4
    data = load_dataset(registered)
    assert data.keypoints == list(NAMES)
    assert data.skeleton == [(0, 1), (0, 2), (0, 3), (3, 4)]


def config(name):
    """keypoint_rcnn_r18_fpn_scratch.py on the mice, narrow."""
    cfg = get_config("keypoint_rcnn_r18_fpn_scratch.py")
    cfg.train.init_checkpoint = ""
    overrides = [
        f"dataloader.train.dataset.names={name}",
        f"dataloader.test.dataset.names={name}",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "model.backbone.out_channels=16",
        "model.roi_heads.keypoint_head.num_keypoints=5",
        "model.roi_heads.keypoint_head.conv_dims=[16]",
        "model.roi_heads.batch_size_per_image=16",
        "model.roi_heads.box_head.fc_dims=[16]",
        "model.roi_heads.box_predictor.input_shape.channels=16",
        "model.roi_heads.box_predictor.test_score_thresh=0.0",
        "model.roi_heads.box_predictor.test_topk_per_image=3",
    ]
    cfg.dataloader.train.mapper.augmentations[0].update(short_edge_length=[64], max_size=96)
    cfg.dataloader.test.mapper.augmentations[0].update(short_edge_length=64, max_size=96)
    return LazyConfig.apply_overrides(cfg, overrides)


def test_it_trains_predicts_and_is_drawn(registered):
    cfg = config(registered)
    torch.manual_seed(0)
    loader = iter(instantiate(cfg.dataloader.train))
    model = instantiate(cfg.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with EventStorage():
        for _ in range(2):
            losses = model(next(loader))
            assert losses["loss_keypoint"] > 0
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    model.eval()
    sample = next(iter(instantiate(cfg.dataloader.test)))[0]
    with torch.no_grad():
        found = model([sample])[0]["instances"]
    assert found.pred_keypoints.shape == (3, 5, 3)
    canvas = np.zeros((64, 96, 3), np.uint8)
    links = load_dataset(registered).skeleton
    for points in found.pred_keypoints.numpy():
        draw_skeleton(canvas, points, links, (0, 255, 0), min_visible=0)
    assert canvas.any()


def test_a_mirrored_image_exchanges_left_and_right(registered):
    record = get_dataset_dicts(registered)[0]
    mirrored = SafeMapper(
        True,
        augmentations=[RandomFlip(1.0)],
        image_format="BGR",
        use_keypoint=True,
        keypoint_hflip_indices=hflip_indices(registered),
    )(record)
    points = mirrored["instances"].gt_keypoints.tensor[0]
    stored = torch.tensor(record["annotations"][0]["keypoints"]).reshape(-1, 3)[[0, 2, 1, 3, 4]]
    torch.testing.assert_close(points[:, 0], 96 - stored[:, 0])


def perfect(record):
    """The ground truth of a record as a prediction."""
    found = Instances((64, 96))
    found.pred_boxes = Boxes(torch.tensor([annotation["bbox"] for annotation in record["annotations"]]))
    found.scores = torch.ones(len(found.pred_boxes))
    found.pred_classes = torch.zeros(len(found.scores), dtype=torch.int64)
    points = torch.tensor([annotation["keypoints"] for annotation in record["annotations"]])
    found.pred_keypoints = points.reshape(len(found.scores), 5, 3)
    return found


def evaluate(name, move=0.0, **options):
    records = get_dataset_dicts(name)
    evaluator = COCOEvaluator(name, distributed=False, **options)
    evaluator.reset()
    for record in records:
        found = perfect(record)
        found.pred_keypoints[:, :, 0] += move
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["keypoints"]["AP"]


def test_oks_is_by_its_own_sigmas(registered):
    assert evaluate(registered) == pytest.approx(100)
    # OKS = mean of exp(-d^2 / (2 area (2 sigma)^2)), cocodataset.org/#keypoints-eval; AP counts its thresholds 0.5 to 0.95.
    move = 4.0
    oks = np.exp(-(move**2) / (2 * 1200 * (2 * np.array(SIGMAS)) ** 2)).mean()
    thresholds = np.linspace(0.5, 0.95, 10)
    assert 0.5 < oks < 0.95
    assert evaluate(registered, move) == pytest.approx(100 * (oks >= thresholds).mean())


def test_sigmas_that_are_given_come_first(registered):
    assert evaluate(registered, 4.0, kpt_oks_sigmas=[10.0] * 5) == pytest.approx(100)


def test_keypoints_without_sigmas_are_one_line(mice):
    register("mice_without_sigmas", format="coco", json=mice, images=mice.parent, skeleton=Skeleton(NAMES))
    try:
        with pytest.raises(InputError, match="a sigma for each of the 5 keypoints and COCO's are for 17") as caught:
            evaluate("mice_without_sigmas")
        assert "\n" not in str(caught.value)
    finally:
        forget("mice_without_sigmas")


def test_names_and_links_come_from_a_coco_file(people):
    get_dataset_dicts(people)
    metadata = MetadataCatalog.get(people)
    assert [rule[:2] for rule in metadata.keypoint_connection_rules] == [("nose", "left_eye")]
    assert not hasattr(metadata, "keypoint_oks_sigmas")


def changed_file(mice, folder, **category):
    data = json.loads(mice.read_text())
    data["categories"][0].update(category)
    file = folder / "changed.json"
    file.write_text(json.dumps(data))
    return file


@pytest.mark.parametrize("link", [[0, 1], [5, 6], [3, 3], [1.5, 2]])
def test_a_link_to_an_unknown_keypoint_is_warned_of_and_not_drawn(mice, tmp_path, caplog, link):
    file = changed_file(mice, tmp_path, keypoints=list(NAMES), skeleton=[[1, 2], link])
    name = f"coco:{file}@{mice.parent}"
    get_dataset_dicts(name)
    assert "its skeleton links keypoints that do not exist" in caplog.text
    assert not hasattr(MetadataCatalog.get(name), "keypoint_connection_rules")


@pytest.mark.parametrize(
    ("names", "own", "message"),
    [
        (NAMES[:4], None, "`skeleton` has 4 keypoints, but an object of image 1 has 5"),
        (NAMES[::-1], NAMES, "`skeleton` has tail_tip, .*, but the files have nose, left_ear"),
    ],
)
def test_a_skeleton_that_is_not_the_datas_is_refused(mice, tmp_path, names, own, message):
    file = changed_file(mice, tmp_path, **({"keypoints": own} if own else {}))
    register("other_mice", format="coco", json=file, images=mice.parent, skeleton=Skeleton(names))
    try:
        with pytest.raises(InputError, match=message) as caught:
            get_dataset_dicts("other_mice")
        assert "\n" not in str(caught.value)
    finally:
        forget("other_mice")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ()}, "`names` is empty"),
        ({"names": "nose"}, "`names` is 'nose', expected a list of names"),
        ({"names": ("a", 1)}, "`names` is .*expected a list of names"),
        ({"names": ("a", "b", "a")}, "`names` has 'a' twice"),
        ({"names": NAMES, "sigmas": SIGMAS[:3]}, "3 `sigmas` for 5 `names`: give one for each, or none"),
        ({"names": ("a", "b"), "sigmas": (0.1, 0)}, "`sigmas` has 0, expected numbers above 0"),
        ({"names": ("a", "b"), "sigmas": (0.1, "0.2")}, "`sigmas` has '0.2'"),
        ({"names": ("a", "b"), "links": [("a", "c")]}, r"`links` has \['a', 'c'\]: 'c' is not among the `names`"),
        ({"names": ("a", "b"), "links": [("a",)]}, r"`links` has \['a'\]: expected two names"),
        ({"names": ("a", "b"), "links": ["ab", 1]}, "`links` is 'ab', expected a list of names"),
        ({"names": ("a", "b"), "links": [1]}, "`links` is 1, expected a list of names"),
        ({"names": ("a", "b", "c"), "flip_map": [("a", "b"), ("b", "c")]}, "`flip_map` has 'b' twice"),
    ],
)
def test_faults_of_a_skeleton_are_named(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        Skeleton(**arguments)
    assert "\n" not in str(caught.value)


def test_lists_and_tuples_make_equal_skeletons():
    lists = Skeleton(list(NAMES), [["left_ear", "right_ear"]], list(SIGMAS), [list(link) for link in LINKS])
    assert lists == MOUSE
    assert Skeleton(NAMES, flip_map=()).flip_map == ()


@pytest.mark.parametrize(
    ("sigmas", "predicted", "annotated", "message"),
    [
        (SIGMAS, 17, 5, r"predicts 17 keypoints and the data set has 5: set .*num_keypoints=5"),
        ((), 5, 5, "a sigma for each of the 5 keypoints and COCO's are for 17: register"),
        (SIGMAS, 17, 17, "a sigma for each of the 17 keypoints and 5 are set"),
    ],
)
def test_sigmas_of_another_number_are_one_line(sigmas, predicted, annotated, message):
    with pytest.raises(InputError, match=message) as caught:
        check_sigmas(sigmas, predicted=predicted, annotated=annotated)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("sigmas", "count"), [(SIGMAS, 5), ((), 17), ([0.1] * 17, 17)])
def test_sigmas_that_fit_pass(sigmas, count):
    check_sigmas(sigmas, predicted=count, annotated=count)
