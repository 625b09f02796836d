"""The checkpoints of a run in its folder, and the one to resume from."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from maskrcnn_ext.engine.checkpoint import files
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# Holds the name of the newest checkpoint, as Detectron2 writes it.
LAST = "last_checkpoint"
# The names along a run, also Detectron2's. Others, such as model_best, are kept beside it.
_NUMBERED = re.compile(r"(.+)_(\d{7,})\.pth")
_FINAL = re.compile(r".+_final\.pth")


def is_of_the_run(name: str) -> bool:
    """Whether a file's name is that of a checkpoint along the run, such as ``model_0004999.pth`` or ``model_final.pth``."""
    return bool(_NUMBERED.fullmatch(name) or _FINAL.fullmatch(name))


def numbered(folder: Path, prefix: str) -> dict[int, Path]:
    """Returns the checkpoints ``<prefix>_<iteration>.pth`` of a folder by their iterations, in order."""
    found = {}
    for file in folder.glob("*.pth"):
        match = _NUMBERED.fullmatch(file.name)
        if match and match[1] == prefix:
            found[int(match[2])] = file
    return dict(sorted(found.items()))


def newest_first(folder: Path, *, allow_pickle: bool = False) -> list[Path]:
    """Returns the checkpoints along the run, in the order in which to resume from them.

    What ``last_checkpoint`` names is the newest, but for a run that was killed between a checkpoint and its note there: a numbered file
    that is both younger than the note and of a later iteration comes before. Without a note only numbered files count, as a
    ``model_final.pth`` may have been put there to begin from.
    """
    found = [file for file in folder.glob("*.pth") if is_of_the_run(file.name)]
    found.sort(key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    note = folder / LAST
    numbers = {file: int(match[2]) for file in found if (match := _NUMBERED.fullmatch(file.name))}
    if not note.is_file():
        return list(numbers)
    last = folder / note.read_bytes().decode(errors="replace").strip()
    later = [file for file in numbers if file != last and file.stat().st_mtime_ns > note.stat().st_mtime_ns]
    if later:
        done = numbers[last] if last in numbers else _iteration_or_none(last, allow_pickle)
        later = [file for file in later if done is None or numbers[file] > done]
    return [*later, last, *(file for file in found if file != last and file not in later)]


def newest_whole(folder: Path, *, allow_pickle: bool = False) -> Path | None:
    """Returns the checkpoint to resume from, and warns of every newer one that is damaged; None where there is none at all.

    Raises:
        InputError: there are some, and none is whole; one wants to run code and may not.
    """
    problems: list[str] = []
    for file in newest_first(folder, allow_pickle=allow_pickle):
        try:
            iteration = iteration_of(file, allow_pickle=allow_pickle)
        except files.DamagedFileError as error:
            problems.append(str(error))
            continue
        if problems:
            logger.warning("%s; resuming from %s, after iteration %s", "; ".join(problems), file.name, iteration)
        return file
    if problems:
        raise InputError(
            f"{'; '.join(problems)}; no other checkpoint in {folder} is whole: bring one back, or remove these and {LAST} to start anew"
        )
    return None


def iteration_of(file: Path, *, allow_pickle: bool = False) -> int | None:
    """Reads a checkpoint for the iteration after which it was written; None where it does not say.

    Raises:
        DamagedFileError: it is not there, not whole, or no checkpoint.
        InputError: it wants to run code and may not.
    """
    if not file.is_file():
        raise files.DamagedFileError(f"checkpoint {file}, which {LAST} names, is not there")
    checkpoint = files.read(file, allow_pickle=allow_pickle)
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise files.DamagedFileError(f"checkpoint {file}: holds no `model`")
    iteration = checkpoint.get("iteration")
    return None if iteration is None else int(iteration)


def _iteration_or_none(file: Path, allow_pickle: bool) -> int | None:
    try:
        return iteration_of(file, allow_pickle=allow_pickle)
    except files.DamagedFileError:
        return None
