"""Every named data set is read from files laid out as its distribution is; its config and its page agree with it."""

import json
import re
from collections import Counter
from importlib import import_module

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog

from maskrcnn_ext import InputError, get_config, get_dataset_dicts
from maskrcnn_ext.config.zoo import list_configs
from maskrcnn_ext.data.registry.domains import DOMAINS
from tests.conftest import ROOT
from tests.helpers.domain_files import write_domain

DATASETS = {
    name: (domain, arguments)
    for domain in DOMAINS
    for name, arguments in import_module(f"maskrcnn_ext.data.registry.domains.{domain}").DATASETS.items()
}
CONFIGS = [name for name in list_configs() if name.startswith("domains/") and name != "domains/shapes.py"]


# The number of images, of objects without crowds, and of crowds of every named data set.
EXPECTED = {
    "balloon_train": (2, 2, 0),
    "balloon_val": (1, 1, 0),
    "bdd100k_train": (2, 4, 2),
    "bdd100k_val": (1, 2, 1),
    "cityscapes_train": (2, 6, 2),
    "cityscapes_val": (1, 3, 1),
    "crowdpose_train": (2, 4, 0),
    "crowdpose_val": (1, 2, 0),
    "crowdpose_test": (1, 2, 0),
    "fruits_nuts_train": (4, 4, 0),
    "fruits_nuts_val": (1, 1, 0),
    "isaid_train": (3, 6, 0),
    "isaid_val": (2, 4, 0),
    "kangaroo_train": (4, 4, 0),
    "kangaroo_val": (1, 1, 0),
    "kitti_mots_train": (12, 36, 24),
    "kitti_mots_val": (9, 27, 18),
    "kudzu_bugs_train": (2, 2, 0),
    "kudzu_bugs_val": (1, 1, 0),
    "left_atrium_train": (8, 4, 0),
    "left_atrium_val": (4, 2, 0),
    "nuclei_train": (4, 12, 0),
    "nuclei_val": (1, 3, 0),
    "ocid_floor": (2, 3, 0),
    "ocid_table": (2, 3, 0),
    "penn_fudan_train": (4, 8, 0),
    "penn_fudan_val": (1, 2, 0),
    "spacenet_buildings": (5, 8, 0),
    "spacenet_buildings_train": (4, 6, 0),
    "spacenet_buildings_val": (1, 2, 0),
    "spleen_train": (16, 8, 0),
    "spleen_val": (4, 2, 0),
    "tree_crowns_train": (3, 5, 0),
    "tree_crowns_val": (1, 1, 0),
}


def splits(domain):
    return [name for name, (of, _) in DATASETS.items() if of == domain and name != "spacenet_buildings"]


def test_every_name_is_tested():
    assert set(EXPECTED) == set(DATASETS)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_is_read_as_it_is_distributed(domain, root):
    write_domain(domain, root)
    for name, (of, arguments) in DATASETS.items():
        if of != domain:
            continue
        records = get_dataset_dicts(name, filter_empty=False)
        crowds = Counter(a["iscrowd"] for record in records for a in record["annotations"])
        assert (len(records), crowds[0], crowds[1]) == EXPECTED[name]
        metadata = MetadataCatalog.get(name)
        classes = list(
            arguments.get("classes") or import_module(f"maskrcnn_ext.data.registry.domains.{domain}").CLASSES
        )
        assert metadata.thing_classes == classes
        if "colors" in arguments:
            assert metadata.thing_colors == [list(arguments["colors"][name]) for name in classes]
        for record in records:
            for annotation in record["annotations"]:
                x0, y0, x1, y1 = annotation["bbox"]
                assert 0 <= x0 < x1 <= record["width"]
                assert 0 <= y0 < y1 <= record["height"]
    seen: Counter[str] = Counter()
    for name in splits(domain):
        seen.update({record["file_name"] for record in get_dataset_dicts(name)})
    assert max(seen.values()) == 1 or domain == "tree_crowns"  # which is split within a file


@pytest.mark.parametrize("name", DATASETS)
def test_missing_data_is_one_line_that_shows_the_layout(name, root):
    with pytest.raises(InputError, match="no such file or folder") as error:
        get_dataset_dicts(name)
    message = str(error.value)
    assert message.startswith(f"data set {name}: ")
    assert message.endswith(f"; expected below {root}: {DATASETS[name][1]['layout']}")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["bdd100k_train", "cityscapes_train", "kitti_mots_train"])
def test_the_classes_are_those_of_the_numbers_in_the_files(name, root):
    domain = DATASETS[name][0]
    write_domain(domain, root)
    records = get_dataset_dicts(name)
    classes = MetadataCatalog.get(name).thing_classes
    found = Counter(classes[a["category_id"]] for a in records[0]["annotations"] if not a["iscrowd"])
    expected = {
        "bdd100k": {"car": 1, "pedestrian": 1},
        "cityscapes": {"car": 2, "person": 1},
        "kitti_mots": {"car": 2, "pedestrian": 1},
    }
    assert found == expected[domain]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_suits_its_data_set(name):
    cfg = get_config(name)
    heads = cfg.model.roi_heads
    train, test = (cfg.dataloader[split].dataset.names for split in ("train", "test"))
    domain, arguments = DATASETS[train]
    assert DATASETS[test][0] == domain
    assert train != test
    classes = arguments.get("classes") or import_module(f"maskrcnn_ext.data.registry.domains.{domain}").CLASSES
    assert heads.num_classes == len(classes)
    assert (heads.box_predictor.get("test_topk_per_image") or 100) == (
        cfg.dataloader.evaluator.get("max_dets_per_image") or 100
    )
    # Every detection is one of the image's proposals, and many of those are of the background.
    assert cfg.model.proposal_generator.post_nms_topk[1] >= 2 * (heads.box_predictor.get("test_topk_per_image") or 100)
    if "keypoint_head" in heads:
        points = import_module(f"maskrcnn_ext.data.registry.domains.{domain}").KEYPOINTS
        assert heads.keypoint_head.num_keypoints == len(points) == len(cfg.dataloader.evaluator.kpt_oks_sigmas)
    assert cfg.dataloader.train.mapper.get("use_instance_mask", False) == ("mask_head" in heads)
    page = (ROOT / f"projects/{domain}/README.md").read_text()
    assert f"configs/{name}" in page
    assert train in page
    assert test in page


@pytest.mark.parametrize("name", [name for name in CONFIGS if "cityscapes" not in name])
def test_a_config_maps_its_own_data(name, root):
    """The config's loader maps the data set's files. Cityscapes is left out, because mapping at 2048 pixels is slow."""
    cfg = get_config(name)
    domain = DATASETS[cfg.dataloader.train.dataset.names][0]
    write_domain(domain, root)
    for split in ("train", "test"):
        records = instantiate(cfg.dataloader[split].dataset)
        loader = cfg.dataloader[split]
        mapper = instantiate(loader.mapper)
        mapped = mapper(next(record for record in records if record["annotations"]))
        assert mapped["image"].shape[0] == 3
        assert mapped["image"].float().std() > 0 or domain in ("spacenet", "tree_crowns")  # which are of one colour
        if split == "train":
            instances = mapped["instances"]
            assert len(instances) or cfg.dataloader.train.mapper.get("recompute_boxes", False)
            assert instances.has("gt_masks") == ("mask_head" in cfg.model.roi_heads)
            assert instances.has("gt_keypoints") == ("keypoint_head" in cfg.model.roi_heads)


def test_ct_is_shown_in_the_window_of_soft_tissue(root):
    write_domain("decathlon", root)
    cfg = get_config("domains/spleen.py")
    record = next(r for r in instantiate(cfg.dataloader.test.dataset) if r["annotations"])
    image = instantiate(cfg.dataloader.test.mapper)(record)["image"]
    assert image.dtype == torch.uint8
    assert sorted(image.unique().tolist()) == [0, round((60 + 150) / 400 * 255)]


@pytest.mark.realdata
def test_a_real_spacenet_tile_by_name(real_data, root, monkeypatch):
    source = real_data / "aerial_spacenet"
    for folder, file in (("images", "sample_geotiff.tif"), ("buildings", "geotiff_labels.geojson")):
        (root / "spacenet" / folder).mkdir(parents=True)
        (root / "spacenet" / folder / f"sample{(source / file).suffix}").symlink_to(source / file)
    (record,) = get_dataset_dicts("spacenet_buildings")
    rles = [
        mask_util.merge(mask_util.frPyObjects(a["segmentation"], record["height"], record["width"]))
        for a in record["annotations"]
    ]
    ours = mask_util.decode(mask_util.merge(rles))
    theirs = np.zeros_like(ours)
    for split in ("train", "val"):
        data = json.loads((source / f"instances_{split}.json").read_text())
        corner = {}
        for image in data["images"]:
            row, column = map(int, re.search(r"_r(\d)_c(\d)", image["file_name"]).groups())
            corner[image["id"]] = (300 * row, 300 * column)
        for annotation in data["annotations"]:
            y, x = corner[annotation["image_id"]]
            theirs[y : y + 300, x : x + 300] |= mask_util.decode(annotation["segmentation"])
    assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.99
    mapped = instantiate(get_config("domains/spacenet.py").dataloader.test.mapper)(record)
    assert mapped["image"].shape == (3, record["height"], record["width"])
    assert mapped["image"].max() > 255  # 16 bits
