"""A clean dataset and forty ways to break it. Each returns the faults to find: (kind, image id, annotation id)."""

import json
import shutil

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from maskrcnn_ext.data.check import find_faults, read_images, view_dataset

SIZE = 96
EXIF_ORIENTATION = 0x0112


def check(data, folder):
    view = view_dataset(data, folder, "set")
    return find_faults(view, read_images(view))


def serious(faults):
    """Returns (kind, image id, annotation id) of errors and warnings."""
    return {(f.kind, f.image_id, f.annotation_id) for f in faults if f.severity != "info"}


def set_of_rles(shapes, tmp_path):
    """Returns a clean dataset with RLEs and the folder of its images, which a test may change."""
    folder = tmp_path / "images"
    shutil.copytree(shapes.parent / "images", folder)
    return json.loads(shapes.read_text()), folder


def set_of_polygons(shapes, tmp_path):
    """Returns a clean dataset whose polygons are the objects' boxes."""
    data, folder = set_of_rles(shapes, tmp_path)
    for annotation in data["annotations"]:
        set_rectangle(annotation, *annotation["bbox"])
    return data, folder


def set_rectangle(annotation, x, y, w, h):
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    annotation.update(bbox=[x, y, w, h], segmentation=[corners], area=w * h, iscrowd=0)


def of_image(data, image_id):
    return [annotation for annotation in data["annotations"] if annotation["image_id"] == image_id]


def missing_file(data, folder):
    (folder / "000003.jpg").unlink()
    return {("image-missing", 3, None)}


def truncated_jpeg(data, folder):
    file = folder / "000003.jpg"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return {("image-corrupt", 3, None)}


def truncated_png(data, folder):
    file = folder / "000003.png"
    Image.open(folder / "000003.jpg").save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    data["images"][2]["file_name"] = file.name
    return {("image-corrupt", 3, None)}


def no_image_at_all(data, folder):
    (folder / "000003.jpg").write_bytes(b"<html>not found</html>")
    return {("image-corrupt", 3, None)}


def wrong_size(data, folder):
    Image.open(folder / "000003.jpg").resize((2 * SIZE, 2 * SIZE)).save(folder / "000003.jpg")
    return {("image-size", 3, None)}


def exif_rotation(data, folder):
    save_turned(folder / "000003.jpg", 6, (SIZE, SIZE // 2))
    data["images"][2]["height"] = SIZE // 2
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != 3]
    data["annotations"].append({"id": 900, "image_id": 3, "category_id": 1})
    set_rectangle(data["annotations"][-1], 60, 20, 30, 8)
    return {("exif-rotation", 3, None)}


def save_turned(file, orientation, size):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.open(file).crop((0, 0, *size)).save(file, exif=exif)


def exif_upside_down(data, folder):
    save_turned(folder / "000003.jpg", 3, (SIZE, SIZE))
    return {("exif-unclear", 3, None)}


def double_image_id(data, folder):
    data["images"].append({**data["images"][2], "file_name": "more.jpg"})
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(folder / "more.jpg")
    return {("image-id-duplicate", 3, None)}


def double_file_name(data, folder):
    data["images"].append({**data["images"][2], "id": 77})
    return {("file-name-duplicate", 77, None)}


def double_annotation_id(data, folder):
    data["annotations"][-1]["id"] = data["annotations"][0]["id"]
    return {("annotation-id-duplicate", data["annotations"][-1]["image_id"], data["annotations"][0]["id"])}


def unknown_category(data, folder):
    data["annotations"][4]["category_id"] = 99
    return {("category-unknown", data["annotations"][4]["image_id"], 5)}


def unknown_image(data, folder):
    data["annotations"][4]["image_id"] = "333"
    return {("image-unknown", "333", 5)}


def id_as_text(data, folder):
    annotation = data["annotations"][4]
    annotation["category_id"] = str(annotation["category_id"])
    return {("id-type", annotation["image_id"], 5)}


def list_of_rles(data, folder):
    annotation = data["annotations"][4]
    rle = mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], SIZE, SIZE))
    annotation["segmentation"] = [{**rle, "counts": rle["counts"].decode()}]
    return {("segmentation-parts", annotation["image_id"], 5), ("mask-mixed", annotation["image_id"], 5)}


def double_category(data, folder):
    data["categories"].append({"id": 1, "name": "again"})
    return {("category-duplicate", None, None)}


def class_without_objects(data, folder):
    data["categories"].append({"id": 9, "name": "nothing"})
    return {("class-empty", None, None)}


def rare_class(data, folder):
    data["categories"].append({"id": 9, "name": "rare"})
    data["annotations"][0]["category_id"] = 9
    for number in range(300):
        data["annotations"].append({"id": 1000 + number, "image_id": number % 8 + 1, "category_id": 2})
        set_rectangle(data["annotations"][-1], 2 * (number // 8), 3 * (number % 29), 6, 6)
    return {("class-imbalance", None, None)}


def box_outside(data, folder):
    data["annotations"][4]["bbox"] = [200, 10, 20, 20]
    image = data["annotations"][4]["image_id"]
    return {("box-outside", image, 5), ("box-mask-mismatch", image, 5)}


def box_leaves_image(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 60, 10, 36, 20)
    annotation["bbox"] = [60, 10, 40, 20]
    return {("box-beyond-image", annotation["image_id"], 5)}


def degenerate_box(data, folder):
    data["annotations"][4]["bbox"][2] = 0
    return {("box-degenerate", data["annotations"][4]["image_id"], 5)}


def box_of_nan(data, folder):
    data["annotations"][4]["bbox"][2] = float("nan")
    return {("box-broken", data["annotations"][4]["image_id"], 5)}


def box_as_corners(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 50, 40, 20, 10)
    annotation["bbox"] = [50, 40, 70, 50]
    image = annotation["image_id"]
    return {("box-mask-mismatch", image, 5), ("box-beyond-image", image, 5)}


def box_elsewhere(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 10, 10, 30, 30)
    annotation["bbox"] = [60, 60, 30, 30]
    return {("box-mask-mismatch", annotation["image_id"], 5)}


def mask_larger_than_box(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 10, 10, 40, 40)
    annotation["bbox"] = [10, 10, 30, 40]
    return {("mask-beyond-box", annotation["image_id"], 5)}


def polygon_of_two_points(data, folder):
    data["annotations"][4]["segmentation"].append([1, 2, 30, 40])
    return {("polygon-short", data["annotations"][4]["image_id"], 5)}


def bow_tie(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 10, 10, 40, 40)
    annotation.update(segmentation=[[10, 10, 50, 50, 50, 10, 10, 50]], area=800)
    return {("polygon-crossing", annotation["image_id"], 5)}


def polygon_leaves_image(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 60, 10, 50, 20)
    annotation.update(bbox=[60, 10, 36, 20], area=720)
    return {("polygon-beyond-image", annotation["image_id"], 5)}


def polygon_of_odd_count(data, folder):
    annotation = data["annotations"][4]
    annotation["segmentation"][0].append(3.0)
    return {("segmentation-broken", annotation["image_id"], 5)}


def flat_polygon(data, folder):
    annotation = data["annotations"][4]
    annotation["segmentation"] = annotation["segmentation"][0]
    return {("segmentation-broken", annotation["image_id"], 5)}


def no_mask(data, folder):
    del data["annotations"][4]["segmentation"]
    return {("segmentation-missing", data["annotations"][4]["image_id"], 5)}


def mask_outside(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 200, 200, 20, 20)
    image = annotation["image_id"]
    return {("mask-empty", image, 5), ("box-outside", image, 5), ("polygon-beyond-image", image, 5)}


def crowd_as_polygon(data, folder):
    data["annotations"][4]["iscrowd"] = 1
    return {("crowd-polygon", data["annotations"][4]["image_id"], 5)}


def one_rle(data, folder):
    annotation = data["annotations"][4]
    rle = mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], SIZE, SIZE))
    annotation["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    return {("mask-mixed", annotation["image_id"], 5)}


def object_twice(data, folder):
    data["annotations"].append({**data["annotations"][4], "id": 900})
    return {("instance-duplicate", data["annotations"][4]["image_id"], 900)}


def wrong_area(data, folder):
    data["annotations"][4]["area"] *= 3
    return {("area-mismatch", data["annotations"][4]["image_id"], 5)}


def image_twice(data, folder):
    shutil.copy(folder / "000003.jpg", folder / "copy.jpg")
    data["images"].append({**data["images"][2], "id": 77, "file_name": "copy.jpg"})
    return {("image-duplicate", 77, None)}


def long_box(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 5, 5, 88, 3)
    return {("aspect-extreme", annotation["image_id"], 5)}


def many_objects(data, folder):
    for number in range(101):
        data["annotations"].append({"id": 1000 + number, "image_id": 3, "category_id": 1 + number % 5})
        set_rectangle(data["annotations"][-1], 8 * (number % 11), 8 * (number // 11), 6, 6)
    return {("objects-many", 3, None)}


def way_out_of_the_folder(data, folder):
    data["images"][2]["file_name"] = "../images/gone.jpg"
    return {("image-broken", 3, None)}


def no_size(data, folder):
    del data["images"][2]["height"]
    return {("image-sizeless", 3, None)}


def ignored(data, folder):
    data["annotations"][4]["ignore"] = 1
    return {("annotation-ignored", data["annotations"][4]["image_id"], 5)}


def broken_keypoints(data, folder):
    data["annotations"][4]["keypoints"] = [1, 2]
    return {("keypoints-broken", data["annotations"][4]["image_id"], 5)}


def broken_optional_fields(data, folder):
    data["categories"][0]["keypoints"] = 17
    data["images"][2]["labelled_category_ids"] = "1"
    data["annotations"][4]["point_coords"] = [[1, 2]]
    data["annotations"][5]["iscrowd"] = "yes"
    objects = [("field-broken", found["image_id"], found["id"]) for found in data["annotations"][4:6]]
    return {("field-broken", None, None), ("field-broken", 3, None), *objects}


def ids_of_two_types(data, folder):
    data["images"].append({**data["images"][2], "id": "more", "file_name": "more.jpg"})
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(folder / "more.jpg")
    return {("id-types", None, None)}


PLANTED = [
    missing_file, truncated_jpeg, truncated_png, no_image_at_all, wrong_size, exif_rotation, exif_upside_down,
    double_image_id, double_file_name, double_annotation_id, unknown_category, unknown_image, id_as_text, list_of_rles, double_category,
    class_without_objects, rare_class, box_outside, box_leaves_image, degenerate_box, box_of_nan, box_as_corners,
    box_elsewhere, mask_larger_than_box, polygon_of_two_points, bow_tie, polygon_leaves_image, polygon_of_odd_count,
    flat_polygon, no_mask, mask_outside, crowd_as_polygon, one_rle, object_twice, wrong_area, image_twice, long_box,
    many_objects, way_out_of_the_folder, no_size, ignored, broken_keypoints, broken_optional_fields, ids_of_two_types,
]  # fmt: skip
# Faults that a repair leaves: proportions, and what only a look at the images can decide.
NOT_REPAIRED = {
    "class-empty",
    "class-imbalance",
    "aspect-extreme",
    "objects-many",
    "mask-mixed",
    "image-duplicate",
    "exif-unclear",
    "segmentation-missing",
}
