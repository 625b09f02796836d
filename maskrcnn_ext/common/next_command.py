"""Shows what to do next: the commands that usually follow, and the choices where a name is wrong."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from maskrcnn_ext.common.text import natural_sort_key, printable, short_list

_RUN_FILES = ("config.yaml", "metrics.json")


def print_next(*commands: list[str]) -> None:
    """Prints commands to run next, to stderr, so that the output of a command remains what other programs read.

    Args:
        commands: each the arguments of ``maskrcnn-ext``. Words in capitals are left for the user to fill in.
            Without commands, nothing is printed.

    Example::

        print_next(["evaluate", "out/predictions.json", "TRUTH"])
    """
    if not commands:
        return
    lines = [f"    maskrcnn-ext {printable(shlex.join(words))}" for words in commands]
    print("\nNext:", *lines, sep="\n", file=sys.stderr, flush=True)


def runs_near(folder: Path) -> str:
    """Returns ``; runs near it: ...`` with the folders of runs below a folder, or beside it if it does not exist; "" without any.

    Example:
        >>> (tmp_path / "run").mkdir()
        >>> _ = (tmp_path / "run/config.yaml").write_text("")
        >>> runs_near(tmp_path).endswith("run"), runs_near(tmp_path / "rnu").endswith("run"), runs_near(tmp_path / "no/where")
        (True, True, '')
    """
    root = folder if folder.is_dir() else folder.parent
    found: set[str] = set()
    for name in _RUN_FILES if root.is_dir() else ():
        found.update(str(path.parent) for depth in ("*", "*/*") for path in root.glob(f"{depth}/{name}"))
    runs = sorted(found, key=natural_sort_key)
    return f"; runs near it: {short_list(runs, 8)}" if runs else ""
