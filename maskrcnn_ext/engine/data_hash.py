"""Hashes the data sets of a run: the content of annotation files, and the names and sizes of all other files."""

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

# These files are read. All others count by name and size, because reading every image would delay the start of a run.
_ANNOTATIONS = (".json", ".geojson", ".jsonl", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml")
_MAX_BYTES = 2**28  # of all annotation files in a folder
_MAX_FILES = 200_000
_CHUNK = 2**22


def hash_data_sets(cfg: DictConfig) -> dict[str, Any]:
    """Hashes every data set that ``cfg.dataloader`` names.

    Returns:
        ``hash``: one hash of all data sets, independent of the names of their folders; ``sets``: {name: {"hash": ..., "paths": {key:
        {"hash", "files", "bytes", "notes"}}}}. A data set that was registered as a function has no paths, and its hash is None.
    """
    sets = {name: _hash_data_set(name) for name in data_set_names(cfg)}
    digest = hashlib.sha256()
    for name, found in sorted(sets.items()):
        digest.update(f"{'' if ':' in name else name} {found['hash']}\n".encode())
    return {"hash": digest.hexdigest(), "sets": sets}


def data_set_names(cfg: DictConfig) -> list[str]:
    """Returns the names of the data sets below ``cfg.dataloader``, each once, in order.

    Example:
        >>> from omegaconf import OmegaConf
        >>> data_set_names(OmegaConf.create({"dataloader": {"train": {"dataset": {"names": ["a", "b", "a"]}}}}))
        ['a', 'b']
    """
    names: dict[str, None] = {}
    for part in cfg.get("dataloader", {}).values():
        dataset = part.get("dataset") if isinstance(part, Mapping) else None
        found = dataset.get("names") if isinstance(dataset, Mapping) else None
        if found:
            names.update(dict.fromkeys([found] if isinstance(found, str) else found))
    return list(names)


def _hash_data_set(name: str) -> dict[str, Any]:
    try:
        paths = _find_paths(name)
    except InputError as error:  # the loader raises it again, if this data set is used
        return {"hash": None, "paths": {}, "notes": [str(error)]}
    found = {key: {"path": str(path), **hash_path(path)} for key, path in paths.items() if path.exists()}
    if not found:
        return {"hash": None, "paths": {}, "notes": ["its files are unknown"]}
    digest = hashlib.sha256()
    for key, entry in sorted(found.items()):
        digest.update(f"{key} {entry['hash']}\n".encode())
    return {"hash": digest.hexdigest(), "paths": found}


def _find_paths(name: str) -> dict[str, Path]:
    """Returns the files and folders of a data set by their names in its registration, such as "json" and "images"."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    ensure_registered(name)
    source = DatasetCatalog[name]
    if isinstance(source, Source):
        return source.paths()
    metadata = MetadataCatalog.get(name)
    return {key: Path(metadata.get(key)) for key in ("json_file", "image_root") if metadata.get(key)}


def hash_path(path: Path) -> dict[str, Any]:
    """Hashes a file by its content, or a folder: annotation files by content, other files by name and size.

    Returns:
        ``hash``: SHA-256; ``files`` and ``bytes``: their numbers; ``notes``: the parts that the hash leaves out.

    Example:
        >>> (tmp_path / "a.json").write_text("[]")
        2
        >>> hash_path(tmp_path / "a.json")["hash"][:8]
        '4f53cda1'
    """
    if path.is_file():
        digest = hashlib.sha256()
        _add_content(digest, path)
        return {"hash": digest.hexdigest(), "files": 1, "bytes": path.stat().st_size, "notes": []}
    digest, files, size, read, notes = hashlib.sha256(), 0, 0, 0, []
    for entry in _walk_files(path):
        files += 1
        if files > _MAX_FILES:
            notes.append(f"files beyond the first {_MAX_FILES}, in the order of their names, do not count")
            break
        length = entry.stat().st_size
        size += length
        digest.update(f"{Path(entry.path).relative_to(path).as_posix()} {length}\n".encode("utf-8", "surrogateescape"))
        if entry.name.lower().endswith(_ANNOTATIONS):
            read += length
            if read <= _MAX_BYTES:
                _add_content(digest, Path(entry.path))
    notes.append("images count by name and size")
    if read > _MAX_BYTES:
        notes.append(f"annotation files beyond the first {_MAX_BYTES} bytes count by name and size")
    return {"hash": digest.hexdigest(), "files": files, "bytes": size, "notes": notes}


def _add_content(digest: Any, path: Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)


def _walk_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yields the files below a folder in the order of their names; hidden ones are skipped."""
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _walk_files(Path(entry.path))
        elif entry.is_file():
            yield entry
