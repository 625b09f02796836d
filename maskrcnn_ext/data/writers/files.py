"""What the writers share: a result that appears whole or not at all, the images, and progress."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.errors import InputError


@contextmanager
def staged(target: Path, *, overwrite: bool, sources: Sequence[Path] = ()) -> Iterator[Path]:
    """Gives the path to write instead of ``target``, which takes its name when the block ends without an error.

    Args:
        target: a file or folder that is to be made.
        overwrite: whether an existing one is replaced.
        sources: files that are still needed: they may not be, or lie in, what is replaced.

    Raises:
        InputError: the target is there, is not to be replaced, or holds a source; it cannot be written.
    """
    target = target.absolute()
    exists = target.exists() or target.is_symlink()
    if exists and not overwrite:
        raise InputError(f"{target} is there already: choose another place, or --overwrite it")
    if exists:
        real = target.resolve()
        source = next((s for s in map(Path.resolve, sources) if s == real or real in s.parents), None)
        if source is not None:
            raise InputError(f"{target} cannot be overwritten: it holds {source}, which is to be read")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if exists:
            old = target.with_name(f".{target.name}.old-{os.getpid()}")
            target.rename(old)
            partial.rename(target)
            _remove(old)
        else:
            partial.rename(target)
    except OSError as error:  # a full disk, a folder that is closed to this user
        raise InputError(f"{target} cannot be written ({error})") from error
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def each_image(data: DataSet, verb: str) -> Iterator[ImageRecord]:
    """Goes through the records, with a progress bar on a terminal when it takes longer than a second."""
    from tqdm import tqdm

    yield from tqdm(data.images, desc=verb, unit="image", delay=1, disable=None)


def check_plain_images(data: DataSet) -> None:
    """Refuses records that are a part of a file, such as a slice of a volume: the copy of the file would be another image.

    Raises:
        InputError: there is such a record.
    """
    for record in data.images:
        if record.extra:
            part = ", ".join(f"{key} {value}" for key, value in record.extra.items())
            raise InputError(
                f"image {record.image_id!r} is a part of {record.file_name} ({part:.80}): save such parts as images first"
            )


def image_names(data: DataSet) -> list[str]:
    """Returns a file name for each image, so that they can lie in one folder: their own, where its stem is the only one of its kind.

    Others get their folders in front, as in ``2024__north__001.jpg``, and a number where even that is there twice.
    """
    folder = common_folder(data)
    stems = Counter(Path(record.file_name).stem.casefold() for record in data.images)
    taken: set[str] = set()
    names = []
    for record in data.images:
        path = Path(record.file_name)
        stem = path.stem
        if stems[stem.casefold()] > 1:
            stem = "__".join(path.absolute().relative_to(folder).with_suffix("").parts)
        unique, number = stem, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}_{number}"
        taken.add(unique.casefold())
        names.append(unique + path.suffix)
    return names


def common_folder(data: DataSet) -> Path:
    """Returns the deepest folder that all images lie in."""
    folders = {str(Path(record.file_name).absolute().parent) for record in data.images}
    return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def place_image(record: ImageRecord, target: Path, *, link: bool) -> None:
    """Copies an image, or links to it.

    Raises:
        InputError: there is no such image.
    """
    source = Path(record.file_name).absolute()
    if not source.is_file():
        raise InputError(f"image {record.image_id!r}: no file {source}")
    if link:
        target.symlink_to(source)
    else:
        shutil.copyfile(source, target)
