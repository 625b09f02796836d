"""What tells the data of one run from that of another: the content of annotation files, the names and sizes of everything else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.data.registry.source import Source
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Read in full; what else lies in a folder counts by name and size, because images are too many to be read at the start of a run.
_ANNOTATIONS = (".json", ".geojson", ".jsonl", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml")
_MOST_BYTES = 2**28  # of all annotation files of a folder
_MOST_FILES = 200_000
_CHUNK = 2**22


def hash_data_sets(cfg: DictConfig) -> dict[str, Any]:
    """Returns, for every data set that ``cfg.dataloader`` names, the hashes of its files and folders, and one hash of all.

    Returns:
        ``hash``: of all data sets together, whatever the folders that hold them are called; ``sets``: {name: {"hash": ..., "paths": {path:
        {"hash", "files", "bytes", "notes"}}}}. A data set that only a function knows has no paths, and its hash is None.
    """
    sets = {name: _hash_data_set(name) for name in data_set_names(cfg)}
    digest = hashlib.sha256()
    for name, found in sorted(sets.items()):
        digest.update(f"{'' if ':' in name else name} {found['hash']}\n".encode())
    return {"hash": digest.hexdigest(), "sets": sets}


def data_set_names(cfg: DictConfig) -> list[str]:
    """Returns the names of the data sets below ``cfg.dataloader``, each once, in their order."""
    names: dict[str, None] = {}
    for part in cfg.get("dataloader", {}).values():
        dataset = part.get("dataset") if isinstance(part, Mapping) else None
        found = dataset.get("names") if isinstance(dataset, Mapping) else None
        if found:
            names.update(dict.fromkeys([found] if isinstance(found, str) else found))
    return list(names)


def _hash_data_set(name: str) -> dict[str, Any]:
    try:
        paths = _paths(name)
    except InputError as error:  # the loader will say so, if this data set is used at all
        return {"hash": None, "paths": {}, "notes": [str(error)]}
    found = {key: {"path": str(path), **hash_path(path)} for key, path in paths.items() if path.exists()}
    if not found:
        return {"hash": None, "paths": {}, "notes": ["no file or folder of it is known"]}
    digest = hashlib.sha256()
    for key, entry in sorted(found.items()):
        digest.update(f"{key} {entry['hash']}\n".encode())
    return {"hash": digest.hexdigest(), "paths": found}


def _paths(name: str) -> dict[str, Path]:
    """Where a data set lies, by what its registration calls it, such as "json" and "images"."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    ensure_registered(name)
    source = DatasetCatalog[name]
    if isinstance(source, Source):
        return source.paths()
    metadata = MetadataCatalog.get(name)
    return {key: Path(metadata.get(key)) for key in ("json_file", "image_root") if metadata.get(key)}


def hash_path(path: Path) -> dict[str, Any]:
    """Returns the hash of a file, of its content, or of a folder.

    Args:
        path: a file, or a folder, of which annotation files count by content, and other files by name and size.

    Returns:
        ``hash``: SHA-256; ``files``, ``bytes``: how many; ``notes``: where it does not tell the whole.
    """
    if path.is_file():
        digest = hashlib.sha256()
        _add_content(digest, path)
        return {"hash": digest.hexdigest(), "files": 1, "bytes": path.stat().st_size, "notes": []}
    digest, files, size, read, notes = hashlib.sha256(), 0, 0, 0, []
    for entry in _walk(path):
        files += 1
        if files > _MOST_FILES:
            notes.append(f"files beyond the first {_MOST_FILES}, in the order of their names, do not count")
            break
        length = entry.stat().st_size
        size += length
        digest.update(f"{Path(entry.path).relative_to(path).as_posix()} {length}\n".encode("utf-8", "surrogateescape"))
        if entry.name.lower().endswith(_ANNOTATIONS):
            read += length
            if read <= _MOST_BYTES:
                _add_content(digest, Path(entry.path))
    notes.append("images count by name and size")
    if read > _MOST_BYTES:
        notes.append(f"annotation files beyond the first {_MOST_BYTES} bytes count by name and size")
    return {"hash": digest.hexdigest(), "files": files, "bytes": size, "notes": notes}


def _add_content(digest: Any, path: Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files below a folder, in the order of their names; hidden ones do not count."""
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _walk(Path(entry.path))
        elif entry.is_file():
            yield entry
