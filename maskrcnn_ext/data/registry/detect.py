"""Detects the format of a file or folder, so that its path alone names a data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.data.formats.coco_records import placeholder_class
from maskrcnn_ext.data.formats.csv_boxes import images_in, is_table_of_boxes
from maskrcnn_ext.data.formats.csv_masks import describe_table, is_table_of_masks
from maskrcnn_ext.data.formats.file_names import list_files, parse_name
from maskrcnn_ext.data.formats.image_files import IMAGE_ERRORS, IMAGE_SUFFIXES
from maskrcnn_ext.data.formats.mask_names import IMAGE_FOLDERS
from maskrcnn_ext.data.formats.text_files import read_json, read_text
from maskrcnn_ext.data.formats.via import class_attribute, is_via_table, read_entries, read_regions
from maskrcnn_ext.data.formats.via_project import is_project
from maskrcnn_ext.data.formats.yolo import NAMES_FILES, folders_of_images
from maskrcnn_ext.data.registry.image_places import TRIED, folder_of, folder_with, images_folder
from maskrcnn_ext.data.registry.label_folders import (
    TEST,
    TRAIN,
    VAL,
    cityscapes_splits,
    label_images,
    label_images_in,
    names_option,
    paired_label_images,
    voc_label_images,
)
from maskrcnn_ext.errors import InputError

_BRANCHES = 2  # levels of several folders to look in: a disk of photographs has many, cyclic links have no end
_ROOT = re.compile(rb"<([A-Za-z]\w*)")
_RASTERS = (".tif", ".tiff")
_VECTORS = (".geojson", ".gpkg", ".shp", ".fgb")
_XML_FOLDERS = ("Annotations", "annotations", "labels", "xmls", "xml", "annotations/xmls")


def detect(path: Path) -> str | None:
    """Returns the string that names the data set at a path, such as ``coco:/a/b.json@/a/images``; None if no format is recognised.

    Example:
        >>> _ = (tmp_path / "data.yaml").write_text("names: [cat]")
        >>> detect(tmp_path).removeprefix(f"yolo:{tmp_path}")
        '/data.yaml'
    """
    try:
        return _detect_folder(path) if path.is_dir() else _detect_file(path)
    except (InputError, *IMAGE_ERRORS):  # a file that cannot be read
        return None


def described_by_files(folder: Path) -> list[str]:
    """Returns the strings of the data sets that files in a folder describe: one file each, or one of labelme for all."""
    files = [
        file
        for place in (folder, folder / "annotations")
        for kind in ("*.y*ml", "*.json", "*.xml", "*.csv", *(f"*{suffix}" for suffix in _VECTORS))
        for file in list_files(place, kind)
    ]
    return list(dict.fromkeys(name for name in map(detect, files[:TRIED]) if name is not None))


def xml_root(file: Path) -> str:
    """Returns the name of the first element of an XML file; "" without one. Reads the beginning only."""
    try:
        with file.open("rb") as stream:
            found = _ROOT.search(stream.read(500))
    except OSError:
        return ""
    return found[1].decode("ascii") if found else ""


def _detect_file(file: Path) -> str | None:
    suffix = file.suffix.lower()
    if suffix in (".yaml", ".yml"):
        content = load_yaml(read_text(file), file)
        return f"yolo:{file}" if isinstance(content, dict) and "names" in content else None
    if suffix in _VECTORS:
        for image in map(file.with_suffix, [*_RASTERS, *IMAGE_SUFFIXES]):
            if image.is_file():
                return f"geo:{file}@{image}" + ("" if image.suffix in _RASTERS else "@pixels:true")
        return None
    if suffix == ".xml" and xml_root(file) == "annotations":
        return f"cvat:{file}"
    if suffix == ".csv":
        if is_via_table(file):
            return _detect_via(file)
        if is_table_of_boxes(file):
            return f"csv_boxes:{file}@{folder_of(file, images_in(file)[:TRIED])}"
        if not is_table_of_masks(file):
            return None
        names, are_objects = describe_table(file)
        return f"csv_masks:{file}@{folder_of(file, names[:TRIED])}" + ("" if are_objects else "@instances:component")
    return _detect_json(file, read_json(file)) if suffix == ".json" else None


def _detect_json(file: Path, content: Any) -> str | None:
    if isinstance(content, list) and content and all(isinstance(task, dict) and "data" in task for task in content):
        here = file.parent
        return f"label_studio:{file}@{here / 'images' if (here / 'images').is_dir() else here}"
    if not isinstance(content, dict):
        return None
    if file.name == "meta.json" and isinstance(content.get("classes"), list):
        return f"supervisely:{file.parent}"
    if isinstance(content.get("images"), list) and isinstance(content.get("categories"), list):
        annotations = content.get("annotations")
        first = annotations[0] if isinstance(annotations, list) and annotations else None
        if isinstance(first, dict) and "segments_info" in first:
            return f"coco_panoptic:{file}@{images_folder(file, content['images'])}"
        return f"coco:{file}@{images_folder(file, content['images'])}{_without_placeholder(content)}"
    if "shapes" in content and "imagePath" in content:
        return _detect_labelme(file, content["imagePath"])
    if is_project(content):
        return _detect_via(file)
    entries = content.get("_via_img_metadata", content)
    records = list(entries.values()) if isinstance(entries, dict) else []
    if records and all(isinstance(entry, dict) and {"filename", "regions"} <= set(entry) for entry in records):
        return _detect_via(file)
    return None


def _without_placeholder(content: dict[str, Any]) -> str:
    """Returns the option that leaves out the placeholder class of a COCO file of Roboflow; "" without one."""
    annotations = content.get("annotations")
    entries = annotations if isinstance(annotations, list) else []
    used = {str(entry.get("category_id")) for entry in entries if isinstance(entry, dict)}
    categories = [category for category in content["categories"] if isinstance(category, dict)]
    placeholder = placeholder_class(categories, lambda category: str(category.get("id")) in used)
    text = ",".join(str(category.get("name")) for category in categories if category.get("name") != placeholder)
    return f"@only:{text}" if placeholder and "@" not in text and text.count(",") == len(categories) - 2 else ""


def _detect_labelme(file: Path, image: Any) -> str:
    """Returns the string of a labelme file and those beside it; their images may have been moved to a folder beside theirs."""
    here, path = file.parent, parse_name(image, str(file))
    if any(place.is_file() for place in (here / path.as_posix(), here / path.name)):
        return f"labelme:{here}"
    beside = [folder for folder in list_files(here.parent, "*")[:TRIED] if folder.is_dir()]
    images = folder_with([path.name], [here / name for name in IMAGE_FOLDERS] + beside)
    return f"labelme:{here}@{images}" if images else f"labelme:{here}"


def _detect_via(file: Path) -> str:
    entries = read_entries(file).values()
    names = [entry["filename"] for entry in entries][:TRIED]
    images = folder_with(names, [file.parent, *(file.parent / name for name in IMAGE_FOLDERS)]) or file.parent
    attribute = class_attribute([region for entry in entries for region in read_regions(entry, str(file))])
    return f"via:{file}@{images}" + (f"@attribute:{attribute}" if attribute and "@" not in attribute else "")


def _classes_of_nnunet(file: Path) -> str:
    """Returns the options for the classes in nnU-Net's ``dataset.json``, whose label maps are semantic; "" if it is missing or unclear."""
    content = read_json(file) if file.is_file() else None
    labels = content.get("labels") if isinstance(content, dict) else None
    # Version 2 has numbers by name, version 1 names by number.
    entries = labels.items() if isinstance(labels, dict) else ()
    names = [(value, key) if isinstance(value, int) else (key, value) for key, value in entries]
    values = {str(number): name for number, name in names if str(number) != "0"}
    if not all(isinstance(name, str) and number.isdecimal() for number, name in values.items()):
        return ""
    named = names_option("values", values)
    return f"{named}@instances:component" if named else ""


def _detect_voc(folder: Path) -> str | None:
    pairs = [(labels, images) for images in ("JPEGImages", *IMAGE_FOLDERS) for labels in _XML_FOLDERS]
    for labels, images in (*pairs, (".", ".")):
        files = list_files(folder / labels, "*.xml") if (folder / images).is_dir() else []
        if files and xml_root(files[0]) in ("annotation", ""):
            place, outlines = f"voc:{folder / labels}@{folder / images}", folder / "SegmentationObject"
            outlined = folder / "ImageSets" / "Segmentation" / "trainval.txt"
            if all((outlines / f"{file.stem}.png").is_file() for file in files):
                return f"{place}@objects:{outlines}"
            return f"{place}@{outlined}@objects:{outlines}" if outlines.is_dir() and outlined.is_file() else place
    return None


def _detect_folder(folder: Path, branches: int = _BRANCHES) -> str | None:
    found = _detect_voc(folder) or voc_label_images(folder)
    if found:
        return found
    described = described_by_files(folder)
    if described:
        return described[0] if len(described) == 1 else None
    for name in NAMES_FILES:
        if (folder / name).is_file() and folders_of_images(folder):
            return f"yolo:{folder / name}"
    masks = list_files(folder, "*/masks/*.png")
    if masks and len(list_files(masks[0].parent.parent / "images", "*")) == 1:  # one image for the masks of its objects
        return f"dsb2018:{folder}"
    if (folder / "imagesTr").is_dir() and list_files(folder / "labelsTr", "*.nii*"):
        return f"nifti:{folder / 'imagesTr'}@{folder / 'labelsTr'}{_classes_of_nnunet(folder / 'dataset.json')}"
    if (folder / "images").is_dir() and (outlines := list_files(folder / "labels", "*.geojson")):
        # QuPath's class of an object; the reader reports errors better than a closer look here would.
        attribute = "@attribute:classification" if '"classification"' in read_text(outlines[0]) else ""
        return f"geo:{folder / 'labels'}@{folder / 'images'}@pixels:true{attribute}"
    cities = cityscapes_splits(folder)
    if len(cities) == 1:
        return cities[0][1]
    if (folder / "image_2").is_dir() and list_files(folder / "label_2", "*.txt"):
        return f"kitti:{folder / 'label_2'}@{folder / 'image_2'}"
    found = label_images(folder) or label_images_in(folder, folder)
    if found:
        return found
    paired = paired_label_images(folder)
    if paired:
        return paired[0][1] if len(paired) == 1 else None
    # Archives unpack into a folder, and labels may have a folder beside that of their images.
    inside = [place for place in list_files(folder, "*") if place.is_dir()]
    branches -= len(inside) > 1
    inside = inside if len(inside) <= TRIED and branches >= 0 else []
    names = {place: each for place in inside if (each := _detect_folder(place, branches)) is not None}
    if len(names) > 1 and all(name.startswith("labelme:") and "@" not in name for name in names.values()):
        words = {word for place in names for word in re.findall("[a-z]+", place.name.lower())}
        return None if words & (TRAIN | VAL | TEST) else f"labelme:{folder}"
    return next(iter(names.values())) if len(names) == 1 else None
