"""Reads text, JSON, CSV and XML files of any encoding that they declare or that is Unicode."""

from __future__ import annotations

import csv
import re
from json import loads
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from maskrcnn_ext.common.encodings import decode
from maskrcnn_ext.errors import InputError

_DECLARATION = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)", re.ASCII)


def read_text(file: Path) -> str:
    """Returns the text of a file in any Unicode encoding, without a byte order mark.

    Raises:
        InputError: the file is missing, or has another encoding.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    return decode(content, file)


def read_json(file: Path) -> Any:
    """Returns the content of a JSON file in any Unicode encoding."""
    text = read_text(file)
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a JSON file ({error})") from error


def read_rows(file: Path) -> list[list[str]]:
    """Returns the rows of a CSV file that are not empty, the header first.

    Raises:
        InputError: it cannot be read, or a field is too long.
    """
    try:
        return [row for row in csv.reader(read_text(file).splitlines()) if row]
    except csv.Error as error:
        raise InputError(f"{file}: not a CSV file ({error})") from error


def read_xml(file: Path) -> ElementTree.Element:
    """Returns the root of an XML file in any encoding that it declares or that is Unicode."""
    try:
        content = file.read_bytes()
        declared = _DECLARATION.match(content)
        # The parser itself knows no encodings of Asia.
        return ElementTree.fromstring(content if declared is None else content.decode(declared[1].decode("ascii")))
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, ElementTree.ParseError) and not _DECLARATION.match(content):
            decode(content, file)  # raises an error that names the encoding, if it is not Unicode
        raise InputError(f"{file}: not a readable XML file ({error})") from error
