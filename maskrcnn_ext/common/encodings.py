"""Decodes text files of any Unicode encoding. For others, the error names the likely encoding and the command that converts the file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shlex import quote

from maskrcnn_ext.errors import InputError

# Encodings of characters of several bytes, the most frequent first. Texts of one are often valid in another.
_EAST_ASIAN = ("gb18030", "shift_jis", "euc_kr")


def decode(content: bytes, source: Path | str) -> str:
    """Returns the text of a file in UTF-8, UTF-16 or UTF-32, without a byte order mark.

    Args:
        content: of the file.
        source: its name; it begins the error message.

    Raises:
        InputError: the file has another encoding.

    Example:
        >>> decode("names: [cat]".encode("utf-16"), "data.yaml")
        'names: [cat]'
    """
    try:
        return content.decode(json.detect_encoding(content)).removeprefix("\N{BOM}")
    except UnicodeDecodeError:
        raise encoding_error(content, source) from None


def encoding_error(content: bytes, source: Path | str) -> InputError:
    """Returns the error for content that is not Unicode; it names the likely encodings.

    Example:
        >>> print(encoding_error("café".encode("latin-1"), "a.txt"))
        a.txt: not UTF-8, probably cp1252; convert it: iconv -f cp1252 -t utf-8 a.txt > a.utf8.txt
    """
    found = _likely_encodings(content)
    file = Path(source)
    target = f"{file.stem}.utf8{file.suffix}"
    others = f" (or {', '.join(found[1:])})" if found[1:] else ""
    command = f"iconv -f {found[0]} -t utf-8 {quote(file.name)} > {quote(target)}"
    return InputError(f"{source}: not UTF-8, probably {found[0]}{others}; convert it: {command}")


def _likely_encodings(content: bytes) -> list[str]:
    runs = re.findall(rb"[\x80-\xff]+", content)
    # Letters with accents are mostly alone among ASCII; characters of several bytes are not.
    if 2 * sum(len(run) == 1 and run >= b"\xc0" for run in runs) > len(runs):
        return ["cp1252"]
    return [encoding for encoding in _EAST_ASIAN if _is_valid(content, encoding)] or ["cp1252"]


def _is_valid(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
