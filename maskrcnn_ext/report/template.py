"""The pages of this package: each is one HTML file that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError


def write_page(page: Path, template: str, **values: Any) -> Path:
    """Fills in a template of this folder; values are text, not markup, but where the template says otherwise.

    Args:
        page: the file to write; its folder is made.
        template: such as ``data_page.html``.
        values: of the template's variables.

    Returns:
        `page`.

    Raises:
        InputError: it cannot be written.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.get_template(template).render(**values)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair is legal in JSON and in file names.
        page.write_text(html, encoding="utf-8", errors="xmlcharrefreplace")
    except OSError as error:
        raise InputError(f"{page}: cannot be written ({error.strerror})") from error
    return page
