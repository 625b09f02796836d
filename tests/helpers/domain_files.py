"""Writes the named data sets as small files, laid out as their distributions are."""

import json
import re
import subprocess
from importlib import import_module
from zlib import crc32

import cv2
import numpy as np

from tests.conftest import ROOT

H, W = 40, 60


def save_image(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)


def write_photo(file, height=H, width=W):
    save_image(
        file, np.random.default_rng(crc32(str(file).encode())).integers(0, 255, (height, width, 3), dtype=np.uint8)
    )


def label_image(*values, dtype=np.uint16):
    """Squares of 8 pixels, one for each value, from left to right."""
    labels = np.zeros((H, W), dtype)
    for index, value in enumerate(values):
        labels[10:18, 2 + 10 * index : 10 + 10 * index] = value
    return labels


def write_coco(file, images, annotations, categories):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_balloon(root):
    for split, count in (("train", 2), ("val", 1)):
        entries = {}
        for index in range(count):
            write_photo(root / f"balloon/balloon/{split}/{split}{index}.jpg")
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
            write_photo(root / f"bdd100k/images/10k/{split}/{name}.jpg")
            bitmask = np.zeros((H, W, 4), np.uint8)  # R category, G attributes, B and A the number
            bitmask[5:15, 5:15] = (3, 0, 0, 1)
            bitmask[5:15, 20:30] = (1, 8, 0, 2)  # truncated
            bitmask[5:15, 40:50] = (8, 1, 0, 3)  # to be ignored
            save_image(
                root / f"bdd100k/labels/ins_seg/bitmasks/{split}/{name}.png",
                cv2.cvtColor(bitmask, cv2.COLOR_RGBA2BGRA),
            )
            save_image(root / f"bdd100k/labels/ins_seg/colormaps/{split}/{name}.png", bitmask[..., :3])
    write_photo(root / "bdd100k/images/10k/test/cabc30fc-e7726578.jpg")


def write_cityscapes(root):
    for split, city, count in (("train", "aachen", 2), ("val", "frankfurt", 1)):
        for index in range(count):
            stem = f"{city}_{index:06d}_000019"
            write_photo(root / f"cityscapes/leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            folder = root / f"cityscapes/gtFine/{split}/{city}"
            # Road, two cars, a person, and a group of riders.
            save_image(folder / f"{stem}_gtFine_instanceIds.png", label_image(7, 26000, 26001, 24000, 25))
            save_image(folder / f"{stem}_gtFine_labelIds.png", label_image(7, 26, 26, 24, 25, dtype=np.uint8))
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
            write_photo(root / f"crowdpose/images/{image_id}.jpg")
            images.append({"file_name": f"{image_id}.jpg", "id": image_id, "height": H, "width": W, "crowdIndex": 0.5})
            for x in (3, 30):
                points = [value for k in range(14) for value in (x + k, 5 + 2 * k, 2)]
                person = {"num_keypoints": 14, "iscrowd": 0, "keypoints": points, "image_id": image_id}
                annotations.append({**person, "bbox": [x, 4, 20, 30], "category_id": 1, "id": image_id + x})
            image_id += 1
        write_coco(root / f"crowdpose/json/crowdpose_{split}.json", images, annotations, [category])


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
                write_photo(root / f"iSAID_patches/{split}/images/{name}{suffix}.png")
            images.append({"id": index, "width": W, "height": H, "file_name": f"{name}.png"})
            for category in (9, 14):
                outline = [[5.0, 5.0, 20.0, 5.0, 20.0, 20.0, 5.0, 20.0]]
                own = {"id": len(annotations), "image_id": index, "segmentation": outline, "category_id": category}
                annotations.append(
                    {**own, "category_name": classes[category - 1], "iscrowd": 0, "area": 225, "bbox": [5, 5, 15, 15]}
                )
        write_coco(root / f"iSAID_patches/{split}/instancesonly_filtered_{split}.json", images, annotations, categories)


def write_kangaroo(root):
    box = "<bndbox><xmin>6</xmin><ymin>6</ymin><xmax>25</xmax><ymax>30</ymax></bndbox>"
    one = f"<object><name>kangaroo</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>{box}</object>"
    for number in (1, 2, 3, 5, 7):
        write_photo(root / f"kangaroo/images/{number:05d}.jpg")
        file = root / f"kangaroo/annots/{number:05d}.xml"
        file.parent.mkdir(exist_ok=True)
        size = f"<size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
        file.write_text(
            f"<annotation><folder>Kangaroo</folder><filename>{number:05d}.jpg</filename>{size}{one}</annotation>"
        )


def write_fruits_nuts(root):
    square = [[5, 5, 25, 5, 25, 25, 5, 25]]
    images, annotations = [], []
    for number in range(5):
        write_photo(root / f"fruits_nuts/data/images/{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "height": H, "width": W})
        annotation = {"id": number, "image_id": number, "category_id": 1 + number % 3, "segmentation": square}
        annotations.append({**annotation, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0})
    categories = [{"id": index, "name": name} for index, name in enumerate(("date", "fig", "hazelnut"), 1)]
    write_coco(root / "fruits_nuts/data/trainval.json", images, annotations, categories)


def write_kudzu_bugs(root):
    shape = {"name": "polygon", "all_points_x": [5, 25, 25, 5], "all_points_y": [5, 5, 25, 25]}
    region = {"shape_attributes": shape, "region_attributes": {"inseto": "kudzu", "insect": "kudzu"}}
    for split, count in (("train", 2), ("val", 1)):
        entries = {}
        for index in range(count):
            name = f"{split}{index}.jpg"
            write_photo(root / f"kudzu_bugs/{split}/{name}")
            entries[f"{name}1"] = {"filename": name, "size": 1, "regions": [region], "file_attributes": {}}
        (root / f"kudzu_bugs/{split}/via_region_data.json").write_text(json.dumps(entries))


def write_kitti_mots(root):
    for sequence in range(21):
        write_photo(root / f"kitti_mots/training/image_02/{sequence:04d}/000000.png")
        save_image(root / f"kitti_mots/instances/{sequence:04d}/000000.png", label_image(1000, 1001, 2000, 10000))
    write_photo(root / "kitti_mots/testing/image_02/0000/000000.png")


def write_nuclei(root):
    for name in "abcde":
        folder = root / f"nuclei_dsb2018/stage1_train/{name}"
        write_photo(folder / f"images/{name}.png")
        for index in range(3):
            mask = np.uint8(255) * (label_image(1, 2, 3) == index + 1)
            save_image(folder / f"masks/{name}{index}.png", mask.astype(np.uint8))


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
                write_photo(file)
            else:
                save_image(file, label_image(*values))
        (root / f"OCID-dataset/{sequence}/labels.txt").write_text("1,box\n")


def write_penn_fudan(root):
    for name in ("FudanPed00001", "FudanPed00002", "FudanPed00003", "PennPed00001", "PennPed00002"):
        write_photo(root / f"PennFudanPed/PNGImages/{name}.png")
        save_image(root / f"PennFudanPed/PedMasks/{name}_mask.png", label_image(1, 2, dtype=np.uint8))
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


def run_page_commands(domain):
    """Runs the commands with which a domain's page prepares the downloaded files."""
    page = (ROOT / f"projects/{domain}/README.md").read_text()
    for block in re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL):
        if block.startswith('cd "$DETECTRON2_DATASETS'):
            subprocess.run(["bash", "-euo", "pipefail", "-c", block], check=True, timeout=60)


def write_domain(domain, root):
    """Writes the data sets of a domain below the folder of data sets, and prepares them as its page says."""
    globals()[f"write_{domain}"](root)
    run_page_commands(domain)
