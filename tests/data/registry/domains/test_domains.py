"""Every named data set is read from files laid out as its distribution is; its config and its page agree with it."""

import json
import math
import re
import subprocess
from collections import Counter
from importlib import import_module
from zlib import crc32

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from maskrcnn_ext import InputError, get_config, get_dataset_dicts
from maskrcnn_ext.config.zoo import list_configs
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.data.registry.domains import DOMAINS
from maskrcnn_ext.data.registry.domains.held_out import BY_FILE, BY_PLACE
from tests.conftest import ROOT

DATASETS = {
    name: (domain, arguments)
    for domain in DOMAINS
    for name, arguments in import_module(f"maskrcnn_ext.data.registry.domains.{domain}").DATASETS.items()
}
CONFIGS = [name for name in list_configs() if name.startswith("domains/") and name != "domains/shapes.py"]
H, W = 40, 60


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder of data sets; what is registered forgets what it read elsewhere."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def forget():
    for name in DATASETS:
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)


def save(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)


def photo(file, height=H, width=W):
    save(file, np.random.default_rng(crc32(str(file).encode())).integers(0, 255, (height, width, 3), dtype=np.uint8))


def label_image(*values, dtype=np.uint16):
    """Squares of 8 pixels, one a value, from left to right."""
    labels = np.zeros((H, W), dtype)
    for index, value in enumerate(values):
        labels[10:18, 2 + 10 * index : 10 + 10 * index] = value
    return labels


def coco(file, images, annotations, categories):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_balloon(root):
    for split, count in (("train", 2), ("val", 1)):
        entries = {}
        for index in range(count):
            photo(root / f"balloon/balloon/{split}/{split}{index}.jpg")
            shape = {"name": "polygon", "all_points_x": [5, 25, 25, 5], "all_points_y": [5, 5, 25, 25]}
            regions = {"0": {"shape_attributes": shape, "region_attributes": {}}}
            name = f"{split}{index}.jpg"
            entries[f"{name}1"] = {
                "filename": name,
                "size": 1,
                "regions": regions,
                "fileref": "",
                "file_attributes": {},
            }
        (root / f"balloon/balloon/{split}/via_region_data.json").write_text(json.dumps(entries))


def write_bdd100k(root):
    for split, names in (("train", ("0004a4c0-d4dff0ad", "00054602-3bf57337")), ("val", ("b1c66a42-6f7d68ca",))):
        for name in names:
            photo(root / f"bdd100k/images/10k/{split}/{name}.jpg")
            bitmask = np.zeros((H, W, 4), np.uint8)  # R category, G attributes, B and A the number
            bitmask[5:15, 5:15] = (3, 0, 0, 1)
            bitmask[5:15, 20:30] = (1, 8, 0, 2)  # truncated
            bitmask[5:15, 40:50] = (8, 1, 0, 3)  # to be ignored
            save(
                root / f"bdd100k/labels/ins_seg/bitmasks/{split}/{name}.png",
                cv2.cvtColor(bitmask, cv2.COLOR_RGBA2BGRA),
            )
            save(root / f"bdd100k/labels/ins_seg/colormaps/{split}/{name}.png", bitmask[..., :3])
    photo(root / "bdd100k/images/10k/test/cabc30fc-e7726578.jpg")


def write_cityscapes(root):
    for split, city, count in (("train", "aachen", 2), ("val", "frankfurt", 1)):
        for index in range(count):
            stem = f"{city}_{index:06d}_000019"
            photo(root / f"cityscapes/leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            folder = root / f"cityscapes/gtFine/{split}/{city}"
            # Road, two cars, a person, and riders who are not told apart.
            save(folder / f"{stem}_gtFine_instanceIds.png", label_image(7, 26000, 26001, 24000, 25))
            save(folder / f"{stem}_gtFine_labelIds.png", label_image(7, 26, 26, 24, 25, dtype=np.uint8))
            (folder / f"{stem}_gtFine_polygons.json").write_text("{}")


def write_crowdpose(root):
    names = [
        f"{side}_{part}"
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ]
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": [*names, "head", "neck"]}
    category["skeleton"] = [[16, 14], [14, 12], [17, 15]]  # the files have COCO's, which is of other keypoints
    image_id = 100000
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        images, annotations = [], []
        for _ in range(count):
            photo(root / f"crowdpose/images/{image_id}.jpg")
            images.append({"file_name": f"{image_id}.jpg", "id": image_id, "height": H, "width": W, "crowdIndex": 0.5})
            for x in (3, 30):
                points = [value for k in range(14) for value in (x + k, 5 + 2 * k, 2)]
                person = {"num_keypoints": 14, "iscrowd": 0, "keypoints": points, "image_id": image_id}
                annotations.append({**person, "bbox": [x, 4, 20, 30], "category_id": 1, "id": image_id + x})
            image_id += 1
        coco(root / f"crowdpose/json/crowdpose_{split}.json", images, annotations, [category])


def write_decathlon(root):
    import nibabel

    for task, prefix, numbers in (("Task09_Spleen", "spleen", (2, 3, 10, 20, 61)), ("Task02_Heart", "la", (3, 4, 5))):
        for number in numbers:
            voxels = np.full((W, H, 4), -1000, np.float32)
            labels = np.zeros((W, H, 4), np.uint8)
            labels[10:30, 5:25, 1:3] = 1
            voxels[labels == 1] = 60
            affine = np.diag([0.8, 0.8, 5.0, 1.0])
            for folder, array in (("imagesTr", voxels), ("labelsTr", labels)):
                file = root / task / folder / f"{prefix}_{number}.nii.gz"
                file.parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(array, affine), file)
                (file.parent / f"._{file.name}").write_bytes(b"\0\5\26\7")  # the archives were made on a Mac
        (root / task / "imagesTs").mkdir()


def write_isaid(root):
    classes = import_module("maskrcnn_ext.data.registry.domains.isaid").CLASSES
    categories = [{"id": index, "name": name} for index, name in enumerate(classes, start=1)]
    for split, count in (("train", 3), ("val", 2)):
        images, annotations = [], []
        for index in range(count):
            name = f"P000{index}_0_0_800_800"
            for suffix in ("", "_instance_id_RGB", "_instance_color_RGB"):
                photo(root / f"iSAID_patches/{split}/images/{name}{suffix}.png")
            images.append({"id": index, "width": W, "height": H, "file_name": f"{name}.png"})
            for category in (9, 14):
                outline = [[5.0, 5.0, 20.0, 5.0, 20.0, 20.0, 5.0, 20.0]]
                own = {"id": len(annotations), "image_id": index, "segmentation": outline, "category_id": category}
                annotations.append(
                    {**own, "category_name": classes[category - 1], "iscrowd": 0, "area": 225, "bbox": [5, 5, 15, 15]}
                )
        coco(root / f"iSAID_patches/{split}/instancesonly_filtered_{split}.json", images, annotations, categories)


def write_kangaroo(root):
    box = "<bndbox><xmin>6</xmin><ymin>6</ymin><xmax>25</xmax><ymax>30</ymax></bndbox>"
    one = f"<object><name>kangaroo</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>{box}</object>"
    for number in (1, 2, 3, 5, 7):
        photo(root / f"kangaroo/images/{number:05d}.jpg")
        file = root / f"kangaroo/annots/{number:05d}.xml"
        file.parent.mkdir(exist_ok=True)
        size = f"<size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
        file.write_text(
            f"<annotation><folder>Kangaroo</folder><filename>{number:05d}.jpg</filename>{size}{one}</annotation>"
        )


def write_kitti_mots(root):
    for sequence in range(21):
        photo(root / f"kitti_mots/training/image_02/{sequence:04d}/000000.png")
        save(root / f"kitti_mots/instances/{sequence:04d}/000000.png", label_image(1000, 1001, 2000, 10000))
    photo(root / "kitti_mots/testing/image_02/0000/000000.png")


def write_nuclei(root):
    for name in "abcde":
        folder = root / f"nuclei_dsb2018/stage1_train/{name}"
        photo(folder / f"images/{name}.png")
        for index in range(3):
            mask = np.uint8(255) * (label_image(1, 2, 3) == index + 1)
            save(folder / f"masks/{name}{index}.png", mask.astype(np.uint8))


def write_ocid(root):
    # As unpacked; the page says how its frames come into two folders.
    for sequence, values in (
        ("ARID10/floor/bottom/box/seq02", (1, 2, 3)),
        ("ARID20/floor/top/seq01", (1, 2)),
        ("ARID20/table/top/seq08", (1, 2, 3)),
        ("YCB10/table/top/mixed/seq21", (1, 2, 3, 4)),
    ):
        for part in ("rgb", "depth", "label"):
            file = root / f"OCID-dataset/{sequence}/{part}/result_2018-08-21-14-44-31.png"
            if part == "rgb":
                photo(file)
            else:
                save(file, label_image(*values))
        (root / f"OCID-dataset/{sequence}/labels.txt").write_text("1,box\n")


def write_penn_fudan(root):
    for name in ("FudanPed00001", "FudanPed00002", "FudanPed00003", "PennPed00001", "PennPed00002"):
        photo(root / f"PennFudanPed/PNGImages/{name}.png")
        save(root / f"PennFudanPed/PedMasks/{name}_mask.png", label_image(1, 2, dtype=np.uint8))
        (root / "PennFudanPed/Annotation").mkdir(exist_ok=True)
        (root / f"PennFudanPed/Annotation/{name}.txt").write_text("# Compatible with PASCAL Annotation Version 1.00\n")


def write_raster(file, height, width, dtype, crs, transform):
    import rasterio

    file.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": dtype, "compress": "deflate"}
    with rasterio.open(file, "w", crs=crs, transform=transform, **profile) as raster:
        raster.write(np.full((3, height, width), 100, dtype))


def write_spacenet(root):
    from rasterio.transform import from_origin

    step = 2.7e-6  # degrees; 0.3 metres
    for number in (1, 2, 10, 21, 100):
        west, north = -115.3 + number / 100, 36.2
        chip = f"AOI_2_Vegas_img{number}"
        folder = root / "AOI_2_Vegas_Train"
        transform = from_origin(west, north, step, step)
        write_raster(folder / f"RGB-PanSharpen/RGB-PanSharpen_{chip}.tif", 65, 65, "uint16", "EPSG:4326", transform)
        features = []
        for x in () if number == 2 else (5, 30):  # some chips are without buildings
            ring = [(x, 5), (x + 10, 5), (x + 10, 20), (x, 20), (x, 5)]
            ring = [[west + step * x, north - step * y, 0.0] for x, y in ring]
            features.append(
                {
                    "type": "Feature",
                    "properties": {"OBJECTID": x},
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                }
            )
        file = folder / f"geojson/buildings/buildings_{chip}.geojson"
        file.parent.mkdir(parents=True, exist_ok=True)
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
        file.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def write_tree_crowns(root):
    import pyogrio
    import shapely
    from rasterio.transform import from_origin

    write_raster(
        root / "tree_crowns/rgb/site.tif", 3900, 700, "uint8", "EPSG:32622", from_origin(285000, 585000, 0.1, 0.1)
    )
    # One in every row of windows, and one that two of them share.
    crowns = [shapely.Point(285030, 585000 - y).buffer(4) for y in (40, 120, 200, 280, 370, 80)]
    meta = {"geometry_type": "Polygon", "crs": "EPSG:32622", "driver": "GPKG"}
    pyogrio.raw.write(root / "tree_crowns/crowns.gpkg", shapely.to_wkb(np.array(crowns)), [], fields=[], **meta)


# Of every name: images, objects without crowds, and crowds.
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
    "isaid_train": (3, 6, 0),
    "isaid_val": (2, 4, 0),
    "kangaroo_train": (4, 4, 0),
    "kangaroo_val": (1, 1, 0),
    "kitti_mots_train": (12, 36, 24),
    "kitti_mots_val": (9, 27, 18),
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


def prepare(domain):
    """Runs what a domain's page says that is to be done to the files, if anything."""
    page = (ROOT / f"projects/{domain}/README.md").read_text()
    for block in re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL):
        if block.startswith('cd "$DETECTRON2_DATASETS'):
            subprocess.run(["bash", "-euo", "pipefail", "-c", block], check=True, timeout=60)


def splits(domain):
    return [name for name, (of, _) in DATASETS.items() if of == domain and name != "spacenet_buildings"]


def test_every_name_is_tested():
    assert set(EXPECTED) == set(DATASETS)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_is_read_as_it_is_distributed(domain, root):
    globals()[f"write_{domain}"](root)
    prepare(domain)
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
    globals()[f"write_{domain}"](root)
    records = get_dataset_dicts(name)
    classes = MetadataCatalog.get(name).thing_classes
    found = Counter(classes[a["category_id"]] for a in records[0]["annotations"] if not a["iscrowd"])
    expected = {
        "bdd100k": {"car": 1, "pedestrian": 1},
        "cityscapes": {"car": 2, "person": 1},
        "kitti_mots": {"car": 2, "pedestrian": 1},
    }
    assert found == expected[domain]


def test_windows_of_train_and_val_share_no_pixel(root):
    write_tree_crowns(root)
    of_split = {split: get_dataset_dicts(f"tree_crowns_{split}", filter_empty=False) for split in ("train", "val")}
    lowest = max(record["window"][1] + record["window"][3] for record in of_split["train"])
    assert lowest <= min(record["window"][1] for record in of_split["val"])
    assert {record["window"][1] for record in of_split["train"]} == {0, 800, 1600}
    assert {record["window"][1] for record in of_split["val"]} == {3100}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 41])
def test_what_is_held_out_stays_together_and_is_never_all(count):
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
    """What its own loader gives of its own files; of Cityscapes at 2048 pixels a test need not."""
    cfg = get_config(name)
    domain = DATASETS[cfg.dataloader.train.dataset.names][0]
    globals()[f"write_{domain}"](root)
    prepare(domain)
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
    write_decathlon(root)
    cfg = get_config("domains/spleen.py")
    record = next(r for r in instantiate(cfg.dataloader.test.dataset) if r["annotations"])
    image = instantiate(cfg.dataloader.test.mapper)(record)["image"]
    assert image.dtype == torch.uint8
    assert sorted(image.unique().tolist()) == [0, round((60 + 150) / 400 * 255)]


def test_crowdpose_is_measured_with_its_own_sigmas(root, tmp_path):
    """The annotations' own keypoints as predictions are all correct; moved by a fifth of the box, none is."""
    write_crowdpose(root)
    prepare("crowdpose")
    cfg = get_config("domains/crowdpose.py")
    cfg.train.output_dir = str(tmp_path / "out")
    records = instantiate(cfg.dataloader.test.dataset)
    for shift, expected in ((0, 100), (8, 0)):
        evaluator = instantiate(cfg.dataloader.evaluator)
        evaluator.reset()
        for record in records:
            found = Instances((H, W))
            found.pred_boxes = Boxes(torch.tensor([a["bbox"] for a in record["annotations"]]))
            found.scores = torch.ones(len(found))
            found.pred_classes = torch.zeros(len(found), dtype=torch.int64)
            points = torch.tensor([a["keypoints"] for a in record["annotations"]]).reshape(-1, 14, 3)
            found.pred_keypoints = points + torch.tensor([shift, shift, 0])
            evaluator.process([record], [{"instances": found}])
        assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(expected)


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
