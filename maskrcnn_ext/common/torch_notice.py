"""Says on a terminal that PyTorch is being loaded, which takes seconds, before anything else is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType


class TorchNotice(MetaPathFinder):
    """Prints a line when the import of torch begins, and leaves the import to the other finders."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Returns None."""
        del path, target
        if fullname == "torch":
            print("loading PyTorch", file=sys.stderr, flush=True)


@contextmanager
def torch_notice() -> Iterator[None]:
    """Prints the line if stderr is a terminal and torch is imported in the block."""
    if not sys.stderr.isatty():
        yield
        return
    notice = TorchNotice()
    sys.meta_path.insert(0, notice)
    try:
        yield
    finally:
        sys.meta_path.remove(notice)
