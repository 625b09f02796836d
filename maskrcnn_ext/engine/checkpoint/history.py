"""Lists the checkpoints in the folder of a run and finds the one to resume from."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from maskrcnn_ext.engine.checkpoint import files
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# The file in which Detectron2 writes the name of the newest checkpoint.
LAST = "last_checkpoint"
# Checkpoints of a run's progress, also Detectron2's. Others, such as model_best, are not for resuming.
_NUMBERED = re.compile(r"(.+)_(\d{7,})\.pth")
_FINAL = re.compile(r".+_final\.pth")


def is_progress(name: str) -> bool:
    """Returns whether a file name belongs to a checkpoint of the run's progress.

    Example:
        >>> is_progress("model_0004999.pth"), is_progress("model_final.pth"), is_progress("model_best.pth")
        (True, True, False)
    """
    return bool(_NUMBERED.fullmatch(name) or _FINAL.fullmatch(name))


def list_numbered(folder: Path, prefix: str) -> dict[int, Path]:
    """Returns the checkpoints ``<prefix>_<iteration>.pth`` of a folder by iteration, in ascending order."""
    found = {}
    for file in folder.glob("*.pth"):
        match = _NUMBERED.fullmatch(file.name)
        if match and match[1] == prefix:
            found[int(match[2])] = file
    return dict(sorted(found.items()))


def list_newest_first(folder: Path, *, allow_pickle: bool = False) -> list[Path]:
    """Returns the checkpoints of the run's progress in the order in which to resume from them.

    The first is the one that ``last_checkpoint`` names. If a run was killed before it could update that file, a numbered checkpoint that is
    both newer than the file and of a later iteration precedes it. Without the file only numbered checkpoints count, since a
    ``model_final.pth`` may have been copied there as initial weights.
    """
    found = [file for file in folder.glob("*.pth") if is_progress(file.name)]
    found.sort(key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    pointer = folder / LAST
    iterations = {file: int(match[2]) for file in found if (match := _NUMBERED.fullmatch(file.name))}
    if not pointer.is_file():
        return list(iterations)
    last = folder / pointer.read_bytes().decode(errors="replace").strip()
    later = [file for file in iterations if file != last and file.stat().st_mtime_ns > pointer.stat().st_mtime_ns]
    if later:
        done = iterations[last] if last in iterations else _read_iteration_or_none(last, allow_pickle)
        later = [file for file in later if done is None or iterations[file] > done]
    return [*later, last, *(file for file in found if file != last and file not in later)]


def find_newest(folder: Path, *, allow_pickle: bool = False) -> Path | None:
    """Returns the newest undamaged checkpoint, and warns of newer ones that are damaged; None if there are no checkpoints.

    Raises:
        InputError: all checkpoints are damaged, or one needs to run code and may not.
    """
    problems: list[str] = []
    for file in list_newest_first(folder, allow_pickle=allow_pickle):
        try:
            iteration = read_iteration(file, allow_pickle=allow_pickle)
        except files.DamagedFileError as error:
            problems.append(str(error))
            continue
        if problems:
            logger.warning("%s; resuming from %s, after iteration %s", "; ".join(problems), file.name, iteration)
        return file
    if problems:
        raise InputError(
            f"{'; '.join(problems)}; every checkpoint in {folder} is damaged: restore one, or remove them and {LAST} to start a new run"
        )
    return None


def read_iteration(file: Path, *, allow_pickle: bool = False) -> int | None:
    """Returns the iteration after which a checkpoint was written; None if it has no iteration.

    Raises:
        DamagedFileError: the file is missing, damaged, or not a checkpoint.
        InputError: it needs to run code and may not.
    """
    if not file.is_file():
        raise files.DamagedFileError(f"checkpoint {file}, which {LAST} names, is missing")
    checkpoint = files.read(file, allow_pickle=allow_pickle)
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise files.DamagedFileError(f"checkpoint {file}: contains no `model`")
    iteration = checkpoint.get("iteration")
    return None if iteration is None else int(iteration)


def _read_iteration_or_none(file: Path, allow_pickle: bool) -> int | None:
    try:
        return read_iteration(file, allow_pickle=allow_pickle)
    except files.DamagedFileError:
        return None
