"""Detects the format of a file or folder, so that its path alone names a data set."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.data.formats.coco_records import placeholder_class
from maskrcnn_ext.data.formats.csv_boxes import images_in, is_table_of_boxes
from maskrcnn_ext.data.formats.file_names import list_files, parse_name, path_below
from maskrcnn_ext.data.formats.image_files import IMAGE_ERRORS, IMAGE_SUFFIXES, open_image
from maskrcnn_ext.data.formats.image_folder import ImageFolder
from maskrcnn_ext.data.formats.label_numbers import are_two_valued
from maskrcnn_ext.data.formats.mask_names import IMAGE_FOLDERS, MASK_FOLDERS, names_masks, without_kind
from maskrcnn_ext.data.formats.object_masks import are_object_masks
from maskrcnn_ext.data.formats.text_files import read_json, read_text
from maskrcnn_ext.data.formats.via import class_attribute, is_via_table, read_entries, read_regions
from maskrcnn_ext.data.formats.via_project import is_project
from maskrcnn_ext.data.formats.yolo import NAMES_FILES, folders_of_images
from maskrcnn_ext.errors import InputError

# Images whose existence is tested to find their folder; some may be missing.
_TRIED = 20
_BRANCHES = 2  # levels of several folders to look in: a disk of photographs has many, cyclic links have no end
_ROOT = re.compile(rb"<([A-Za-z]\w*)")
_RASTERS = (".tif", ".tiff")
_VECTORS = (".geojson", ".gpkg", ".shp", ".fgb")
_MASK_SUFFIXES = ("_mask", "_masks", "_cp_masks", "_label", "_labels", "_seg", "_gt")
_XML_FOLDERS = ("Annotations", "annotations", "labels", "xmls", "xml")
# Words in the names of splits.
TRAIN = {"train", "training"}
VAL = {"val", "valid", "validation", "dev"}
_TEST = {"test", "testing"}


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


def images_folder(file: Path, images: list[Any]) -> Path:
    """Returns the folder that has some of the images of a COCO file, given its records of images; see :func:`_folder_of`."""
    return _folder_of(file, [image.get("file_name") for image in images[:_TRIED] if isinstance(image, dict)])


def _folder_of(file: Path, names: list[Any]) -> Path:
    """Returns the folder that has the images that a file names: the first with more than half of them, else that with most.

    It is the folder of the file, its parent, a folder in one of these that is called ``images`` or like a part of the file's name, such as
    its split, or else any folder below. If most of them lie in other folders below, it is the folder above all of them.
    If none has them, it is the first that has them by the last parts of their paths, in any case.
    """
    here = file.parent
    places = [here, here / "images", here.parent, here.parent / "images"]
    splits = dict.fromkeys(
        [file.stem.rpartition("_")[2], *re.split(r"[_.\- ]", file.stem)]
    )  # of annotations/instances_val2017.json
    near = [*places, *(place / split for split in splits if split for place in places)]
    found = _folder_with(names, near)
    path = PureWindowsPath(names[0]) if names and isinstance(names[0], str) else PureWindowsPath()
    if found is None and path.name:
        files = list_files(here.parent if here.name == "annotations" else here, "**/*")
        below = [file for file in files if file.name.casefold() == path.name.casefold()]
        exact = [file.parents[len(path.parts) - 1] for file in below if file.parts[-len(path.parts) :] == path.parts]
        found = _folder_with(names, exact)
        if found is not None and 2 * sum(_exists(found, name) for name in names) < len(names):
            stems = {PureWindowsPath(name).name.casefold() for name in names if isinstance(name, str)}
            parents = {str(file.parent) for file in files if file.name.casefold() in stems}
            found = Path(os.path.commonpath(parents))
    if found is None and path.name:
        loose = (folder for folder in near if ImageFolder(folder).find_by_parts(path))
        found = next(loose, below[0].parent if below else None)
    return found or here


def described_by_files(folder: Path) -> list[str]:
    """Returns the strings of the data sets that files in a folder describe: one file each, or one of labelme for all."""
    files = [
        file
        for place in (folder, folder / "annotations")
        for kind in ("*.y*ml", "*.json", "*.xml", "*.csv", *(f"*{suffix}" for suffix in _VECTORS))
        for file in list_files(place, kind)
    ]
    return list(dict.fromkeys(name for name in map(detect, files[:_TRIED]) if name is not None))


def xml_root(file: Path) -> str:
    """Returns the name of the first element of an XML file; "" without one. Reads the beginning only."""
    try:
        with file.open("rb") as stream:
            found = _ROOT.search(stream.read(500))
    except OSError:
        return ""
    return found[1].decode("ascii") if found else ""


def _folder_with(names: list[Any], folders: Iterable[Path]) -> Path | None:
    """Returns the first folder with more than half of the files, else that with most of them; None if none has one."""
    best, most = None, 0
    for folder in folders:
        number = sum(_exists(folder, name) for name in names)
        if 2 * number > len(names):
            return folder
        if number > most:
            best, most = folder, number
    return best


def _exists(folder: Path, name: Any) -> bool:
    try:
        return path_below(folder, name, "").is_file()
    except InputError:
        return False


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
        return f"csv_boxes:{file}@{_folder_of(file, images_in(file)[:_TRIED])}" if is_table_of_boxes(file) else None
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
    beside = [folder for folder in list_files(here.parent, "*")[:_TRIED] if folder.is_dir()]
    images = _folder_with([path.name], [here / name for name in IMAGE_FOLDERS] + beside)
    return f"labelme:{here}@{images}" if images else f"labelme:{here}"


def _detect_via(file: Path) -> str:
    entries = read_entries(file).values()
    names = [entry["filename"] for entry in entries][:_TRIED]
    images = _folder_with(names, [file.parent, *(file.parent / name for name in IMAGE_FOLDERS)]) or file.parent
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
    named = _names_option("values", values)
    return f"{named}@instances:component" if named else ""


def _names_option(option: str, names: dict[str, str]) -> str:
    """Returns the option that names the classes of numbers; "" without names or if a string cannot hold them."""
    text = json.dumps(names, separators=(",", ":"), ensure_ascii=False)
    return f"@{option}:{text}" if names and "@" not in text else ""


def label_images(folder: Path, part: str = "") -> str | None:
    """Returns the string of the label images in ``labels`` or ``masks``, whose images are in ``images``, or such names; None without any.

    Args:
        folder: that has these folders.
        part: a folder in each of them, such as "train".
    """
    pairs = [(folder / name / part, folder / other / part) for name in IMAGE_FOLDERS for other in MASK_FOLDERS]
    found = (_label_images(labels, images) for images, labels in pairs if images.is_dir() and labels.is_dir())
    return next(filter(None, found), None)


def paired_label_images(folder: Path) -> list[tuple[str, str]]:
    """Returns the pairs of folders such as ``train_images`` or ``train`` and ``train_masks``: their other words, and the string of each."""
    images: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    for place in list_files(folder, "*"):
        if place.is_dir():
            kind = masks if names_masks(place.name) else images
            kind.setdefault(without_kind(place.name), []).append(place)
    pairs = {rest: (masks[rest], images[rest]) for rest in masks if rest in images}
    alone = [(rest, of_masks[0], of[0]) for rest, (of_masks, of) in pairs.items() if len(of_masks) == len(of) == 1]
    return [(rest, name) for rest, labels, of in alone if (name := _label_images(labels, of)) is not None]


def _label_images(labels: Path, images: Path) -> str | None:
    """Returns the string of label images that have the name of their image, or that and a suffix such as "_mask"; None without any.

    In folders of their own, their names may also differ in the word for images and masks; see :mod:`maskrcnn_ext.data.formats.mask_names`.
    """
    files = [file for file in list_files(labels, "*") if file.suffix.lower() in IMAGE_SUFFIXES]
    stems = {stem for file in list_files(images, "*") for stem in (file.stem, file.stem.removesuffix("_img"))}
    for suffix in _MASK_SUFFIXES if labels == images else ("", *_MASK_SUFFIXES):
        found = [
            file for file in files if file.stem.endswith(suffix) and file.stem[: len(file.stem) - len(suffix)] in stems
        ]
        if found:
            option = f"@suffix:{suffix}" if suffix else ""
            return f"label_image:{labels}@{images}{option}" + ("@instances:component" if are_two_valued(found) else "")
    if labels == images:
        return None
    if are_object_masks(labels, images):
        return f"object_masks:{labels}@{images}"
    rests = {without_kind(stem) for stem in stems}
    found = [file for file in files if without_kind(file.stem) in rests]
    option = "@instances:component" if found and are_two_valued(found) else ""
    return f"label_image:{labels}@{images}{option}" if files else None


def cityscapes_splits(folder: Path) -> list[tuple[str, str]]:
    """Returns the splits of a folder that has Cityscapes' ``leftImg8bit`` and ``gtFine`` or ``gtCoarse``, each with its string."""
    photographs = folder / "leftImg8bit"
    labels = next((place for name in ("gtFine", "gtCoarse") if (place := folder / name).is_dir()), None)
    found = [place for place in list_files(labels, "*") if list_files(place, "*/*_instanceIds.png")] if labels else []
    return [
        (place.name, f"cityscapes:{place}@{photographs / place.name}")
        for place in found
        if (photographs / place.name).is_dir()
    ]


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


def _detect_voc_masks(folder: Path) -> str | None:
    """Returns the string of VOC's label images without XML, as CVAT and labelme export them; None without any."""
    images = folder / "JPEGImages"
    objects, classes = (
        next((place for name in (kind, f"{kind}PNG") if list_files(place := folder / name, "*.png")), None)
        for kind in ("SegmentationObject", "SegmentationClass")
    )
    labels = objects or classes
    if labels is None or not images.is_dir():
        return None
    in_colour = open_image(list_files(labels, "*.png")[0]).mode in ("RGB", "RGBA")
    void = "@void:12640480" if in_colour else "@void:255"  # (224, 224, 192) of VOC's palette
    names = _names_option("categories", _classes_of_voc(folder, in_colour)) if classes else ""
    of_classes = f"@class_images:{classes}{names}" + ("" if objects else "@instances:component") if classes else ""
    return f"label_image:{labels}@{images}{of_classes}{void}"


def _classes_of_voc(folder: Path, in_colour: bool) -> dict[str, str]:
    """Returns the class names by number in CVAT's ``labelmap.txt`` or labelme's ``class_names.txt``; none without these files."""
    names: dict[str, str] = {}
    for file in (folder / "labelmap.txt", folder / "class_names.txt"):
        lines = [line.strip() for line in read_text(file).splitlines()] if file.is_file() else []
        for number, line in enumerate(line for line in lines if line and not line.startswith("#")):
            name, _, rest = line.partition(":")
            colour = [int(value) for value in rest.partition(":")[0].split(",") if value.strip().isdecimal()]
            if in_colour and len(colour) == 3:
                number = colour[0] + 256 * colour[1] + 65536 * colour[2]
            if number:
                names[str(number)] = name
    return names


def _detect_folder(folder: Path, branches: int = _BRANCHES) -> str | None:
    found = _detect_voc(folder) or _detect_voc_masks(folder)
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
    found = label_images(folder) or _label_images(folder, folder)
    if found:
        return found
    paired = paired_label_images(folder)
    if paired:
        return paired[0][1] if len(paired) == 1 else None
    # Archives unpack into a folder, and labels may have a folder beside that of their images.
    inside = [place for place in list_files(folder, "*") if place.is_dir()]
    branches -= len(inside) > 1
    inside = inside if len(inside) <= _TRIED and branches >= 0 else []
    names = {place: each for place in inside if (each := _detect_folder(place, branches)) is not None}
    if len(names) > 1 and all(name.startswith("labelme:") and "@" not in name for name in names.values()):
        words = {word for place in names for word in re.findall("[a-z]+", place.name.lower())}
        return None if words & (TRAIN | VAL | _TEST) else f"labelme:{folder}"
    return next(iter(names.values())) if len(names) == 1 else None
