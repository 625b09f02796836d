"""Tables for the terminal and for Markdown, laid out by tabulate, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from maskrcnn_ext.common.text import printable

# First characters of a formula, and blanks that spreadsheets skip before them.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def text_table(
    rows: Iterable[Sequence[object]],
    headers: Sequence[str] = (),
    *,
    align: Sequence[str] | None = None,
    widths: Sequence[int] | None = None,
) -> str:
    """Returns a table for the terminal. Cells are shown as ``str`` formats them: format numbers first.

    Args:
        rows: the cells, row by row. None leaves a cell empty.
        headers: names of the columns; none by default.
        align: ``"left"``, ``"right"`` or ``"center"`` for each column; all left by default.
        widths: of the columns, in which long cells continue on further lines; those of the longest cells by default.

    Example:
        >>> print(text_table([["BoundaryMaskHead", "+1.4"]], headers=["head", "AP"]))
        head              AP
        ----------------  ----
        BoundaryMaskHead  +1.4
    """
    return _tabulate(rows, headers, "simple" if headers else "plain", align, widths)


def markdown_table(
    rows: Iterable[Sequence[object]], headers: Sequence[str], *, align: Sequence[str] | None = None
) -> str:
    """Returns a Markdown table; arguments as for :func:`text_table`.

    Example:
        >>> print(markdown_table([["segm", "36.1"]], headers=["task", "AP"], align=["left", "right"]))
        | task   |   AP |
        |:-------|-----:|
        | segm   | 36.1 |
    """
    escaped = [[None if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return _tabulate(escaped, headers, "pipe", align)


def csv_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Returns a CSV table. An apostrophe is put in front of text that a spreadsheet would run as a formula.

    Example:
        >>> csv_table(["class", "AP"], [["=1+1", -0.5], ["cat", None]])
        "class,AP\r\n'=1+1,-0.5\r\ncat,\r\n"
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([list(map(_without_formula, row)) for row in [headers, *rows]])
    return text.getvalue()


def _without_formula(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _tabulate(
    rows: Iterable[Sequence[object]],
    headers: Sequence[str],
    style: str,
    align: Sequence[str] | None,
    widths: Sequence[int] | None = None,
) -> str:
    from tabulate import tabulate

    cells = [[printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    columns = max(map(len, [headers, *cells]))
    # Without disable_numparse, tabulate would turn "1e5" or "007" into numbers.
    options: dict[str, Any] = {} if widths is None else {"maxcolwidths": list(widths)}
    return str(
        tabulate(
            cells,
            headers=headers,
            tablefmt=style,
            colalign=align or ["left"] * columns,
            disable_numparse=True,
            **options,
        )
        if columns
        else ""
    )
