"""Part of any data set, by a list of its images: ``NAME@list:FILE``, such as ``coco:/data/all.json@/data/images@list:/data/val.txt``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.data.registry.source import Source
from maskrcnn_ext.errors import InputError

_OPTION = "@list:"


@dataclass(frozen=True)
class ListedImages:
    """Keeps the images that a text file lists, one image id a line, in the order of the data set.

    Attributes:
        file: the text file.
    """

    file: Path

    def __call__(self, records: list[ImageRecord]) -> list[ImageRecord]:
        """Returns the listed records.

        Raises:
            InputError: the file cannot be read, or lists an image that the data set does not have.
        """
        wanted = set(read_text(self.file).splitlines()) - {""}
        kept = [record for record in records if str(record.image_id) in wanted]
        if len(kept) < len(wanted):
            missing = sorted(wanted - {str(record.image_id) for record in kept})
            raise InputError(
                f"{self.file} lists {plural(len(missing), 'missing image')}: {short_list(missing, limit=3)}"
            )
        return kept


def listed_name(name: str, file: Path) -> str:
    """Returns the name of the part of a data set that a file lists.

    Example:
        >>> listed_name("balloon_train", Path("/data/val.txt"))
        'balloon_train@list:/data/val.txt'
    """
    return f"{name}{_OPTION}{file}"


def split_listed_name(name: str) -> tuple[str, Path | None]:
    """Returns the whole data set of a name, and the file that lists its part; None for a name without a list.

    Example:
        >>> split_listed_name("balloon_train@list:/data/val.txt")
        ('balloon_train', PosixPath('/data/val.txt'))
    """
    whole, option, file = name.rpartition(_OPTION)
    return (whole, Path(file).expanduser().absolute()) if option else (name, None)


def listed_source(name: str, whole: Source, file: Path) -> Source:
    """Returns the part of a data set whose images a file lists."""
    return whole.part(name, ListedImages(file))


def write_list(file: Path, records: list[ImageRecord]) -> None:
    """Writes the ids of images, one a line."""
    write_atomic(file, "".join(f"{record.image_id}\n" for record in records))
