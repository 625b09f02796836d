"""Detects the format of a file or folder, so that its path alone names a data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.data.formats.label_image import are_two_valued
from maskrcnn_ext.data.formats.reading import IMAGE_SUFFIXES, list_files, path_below, read_json, read_text
from maskrcnn_ext.data.formats.yolo import NAMES_FILES, folder_of_images
from maskrcnn_ext.errors import InputError

# Images whose existence is tested to find their folder; some may be missing.
_TRIED = 20
_ROOT = re.compile(rb"<([A-Za-z]\w*)")
_RASTERS = (".tif", ".tiff")
_VECTORS = (".geojson", ".gpkg", ".shp", ".fgb")
_MASK_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_seg")


def detect(path: Path) -> str | None:
    """Returns the string that names the data set at a path, such as ``coco:/a/b.json@/a/images``; None if no format is recognised.

    Example:
        >>> _ = (tmp_path / "data.yaml").write_text("names: [cat]")
        >>> detect(tmp_path).removeprefix(f"yolo:{tmp_path}")
        '/data.yaml'
    """
    try:
        return _detect_folder(path) if path.is_dir() else _detect_file(path)
    except InputError:  # a file that cannot be read
        return None


def images_folder(file: Path, images: list[Any]) -> Path:
    """Returns the folder that has some of the images of a COCO file.

    It is the folder of the file, its parent, or a folder in one of these that is called ``images`` or like the split of the file.

    Args:
        file: the COCO file.
        images: its records of images.
    """
    here, split = file.parent, file.stem.rpartition("_")[2]  # of annotations/instances_val2017.json
    names = [image.get("file_name") for image in images[:_TRIED] if isinstance(image, dict)]
    return _folder_with(
        names, [here, here / "images", here.parent, here.parent / "images", here / split, here.parent / split]
    )


def described_by_files(folder: Path) -> list[str]:
    """Returns the strings of the data sets that files in a folder describe: one file each, or one of labelme for all."""
    files = [
        file
        for place in (folder, folder / "annotations")
        for kind in ("*.y*ml", "*.json", "*.xml", *(f"*{suffix}" for suffix in _VECTORS))
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


def _folder_with(names: list[Any], folders: list[Path]) -> Path:
    """Returns the first folder with one of the files; the first of all if none has one."""
    return next((folder for folder in folders if any(_exists(folder, name) for name in names)), folders[0])


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
        return f"coco:{file}@{images_folder(file, content['images'])}"
    if "shapes" in content and "imagePath" in content:
        return f"labelme:{file.parent}"
    entries = content.get("_via_img_metadata", content)
    records = list(entries.values()) if isinstance(entries, dict) else []
    if records and all(isinstance(entry, dict) and {"filename", "regions"} <= set(entry) for entry in records):
        names = [entry["filename"] for entry in records[:_TRIED]]
        return f"via:{file}@{_folder_with(names, [file.parent, file.parent / 'images'])}"
    return None


def label_images(folder: Path, part: str = "") -> str | None:
    """Returns the string of the label images in ``labels`` or ``masks``, whose images are in ``images``; None without any.

    Args:
        folder: that has these folders.
        part: a folder in each of them, such as "train".
    """
    images = folder / "images" / part
    places = (folder / name / part for name in ("labels", "masks") if images.is_dir())
    return next(filter(None, (_label_images(place, images) for place in places)), None)


def _label_images(labels: Path, images: Path) -> str | None:
    """Returns the string of label images that have the name of their image, or that and a suffix such as "_mask"; None without any."""
    files = [file for file in list_files(labels, "*") if file.suffix.lower() in IMAGE_SUFFIXES]
    stems = {file.stem for file in list_files(images, "*")}
    for suffix in _MASK_SUFFIXES if labels == images else ("", *_MASK_SUFFIXES):
        found = [
            file for file in files if file.stem.endswith(suffix) and file.stem[: len(file.stem) - len(suffix)] in stems
        ]
        if found:
            option = f"@suffix:{suffix}" if suffix else ""
            return f"label_image:{labels}@{images}{option}" + ("@instances:component" if are_two_valued(found) else "")
    return f"label_image:{labels}@{images}" if files and labels != images else None


def _detect_voc(folder: Path) -> str | None:
    for labels, images in (("Annotations", "JPEGImages"), ("annotations", "images"), (".", ".")):
        files = list_files(folder / labels, "*.xml") if (folder / images).is_dir() else []
        if files and xml_root(files[0]) in ("annotation", ""):
            place, outlines = f"voc:{folder / labels}@{folder / images}", folder / "SegmentationObject"
            outlined = folder / "ImageSets" / "Segmentation" / "trainval.txt"
            if all((outlines / f"{file.stem}.png").is_file() for file in files):
                return f"{place}@objects:{outlines}"
            return f"{place}@{outlined}@objects:{outlines}" if outlines.is_dir() and outlined.is_file() else place
    return None


def _detect_folder(folder: Path) -> str | None:
    found = _detect_voc(folder)
    if found:
        return found
    described = described_by_files(folder)
    if described:
        return described[0] if len(described) == 1 else None
    for name in NAMES_FILES:
        if (folder / name).is_file() and folder_of_images(folder) is not None:
            return f"yolo:{folder / name}"
    if list_files(folder, "*/masks/*.png"):
        return f"dsb2018:{folder}"
    if (folder / "imagesTr").is_dir() and list_files(folder / "labelsTr", "*.nii*"):
        return f"nifti:{folder / 'imagesTr'}@{folder / 'labelsTr'}"
    if (folder / "images").is_dir() and (outlines := list_files(folder / "labels", "*.geojson")):
        # QuPath's class of an object; the reader's errors are better than what follows from looking closer here.
        attribute = "@attribute:classification" if '"classification"' in read_text(outlines[0]) else ""
        return f"geo:{folder / 'labels'}@{folder / 'images'}@pixels:true{attribute}"
    if (folder / "image_2").is_dir() and list_files(folder / "label_2", "*.txt"):
        return f"kitti:{folder / 'label_2'}@{folder / 'image_2'}"
    found = label_images(folder) or _label_images(folder, folder)
    if found:
        return found
    # Archives unpack into a folder.
    inside = list_files(folder, "*")
    return _detect_folder(inside[0]) if len(inside) == 1 and inside[0].is_dir() else None
