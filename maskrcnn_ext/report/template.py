"""Fills in the HTML templates of this folder. Each page is one file that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskrcnn_ext.common.files import write_atomic


def write_page(page: Path, template: str, **values: Any) -> Path:
    """Writes a page.

    Args:
        page: the file to write; missing folders are made.
        template: a file of this folder, such as ``data_page.html``.
        values: the template's variables. They are escaped, unless the template says that they are HTML.

    Returns:
        `page`.

    Raises:
        InputError: the page cannot be written.

    Example:
        >>> page = write_page(tmp_path / "index.html", "browse_page.html", title="train", text="2 images", figures=[])
        >>> "<title>train</title>" in page.read_text()
        True
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.get_template(template).render(**values)
    # Half a surrogate pair, which UTF-8 cannot encode, is legal in JSON and in file names.
    write_atomic(page, html.encode("utf-8", errors="xmlcharrefreplace"))
    return page
