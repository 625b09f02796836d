"""Short texts for messages: an error on one line, similar names, shortened lists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

# Control characters, ends of lines and paragraphs, changes of direction, and halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def first_line(error: BaseException) -> str:
    r"""Returns the first non-empty line of an error's message, or the name of its type if the message is empty.

    Example:
        >>> first_line(ValueError("bad value\nand a long explanation"))
        'bad value'
        >>> first_line(KeyError())
        'KeyError'
    """
    # str() of a KeyError is the repr of its key.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def one_line(error: BaseException) -> str:
    r"""Returns an error's whole message on one line, or the name of its type if the message is empty.

    Example:
        >>> one_line(ValueError("bad value\n  in line 2"))
        'bad value in line 2'
    """
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    r"""Returns a text with escapes instead of control characters, which a terminal would execute, and of halves of surrogate pairs.

    Example:
        >>> printable("a\x1b[31m\nb\ud800")
        'a\\x1b[31m\\nb\\ud800'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def nearest(name: str, choices: Iterable[str], *, count: int = 3, cutoff: float = 0.6) -> list[str]:
    """Returns up to `count` of `choices` that resemble `name`, the most similar first. Ignores case.

    Args:
        name: the name that the user wrote.
        choices: the valid names.
        count: the largest number of names to return.
        cutoff: similarity, from 0 to 1, below which a name is omitted.

    Example:
        >>> nearest("max_itr", ["max_iter", "eval_period"])
        ['max_iter']
    """
    by_folded: dict[str, str] = {}
    for choice in choices:
        by_folded.setdefault(choice.casefold(), choice)
    found = difflib.get_close_matches(name.casefold(), by_folded, n=count, cutoff=cutoff)
    return [by_folded[folded] for folded in found]


def did_you_mean(name: str, choices: Iterable[str], *, count: int = 3, cutoff: float = 0.6) -> str:
    """Returns ``"did you mean X or Y?"`` for a misspelt name, or ``""`` if no choice resembles it.

    Example:
        >>> did_you_mean("max_itr", ["max_iter", "eval_period"])
        'did you mean max_iter?'
    """
    found = nearest(name, choices, count=count, cutoff=cutoff)
    return f"did you mean {' or '.join(found)}?" if found else ""


def short_list(names: Collection[object], limit: int = 5) -> str:
    """Returns the first `limit` names, separated by commas, and the number of the others.

    Example:
        >>> short_list(["a", "b", "c", "d"], limit=2)
        'a, b and 2 more'
    """
    shown = [printable(str(name)) for name, _ in zip(names, range(limit), strict=False)]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def plural(count: int, noun: str, plural_noun: str | None = None) -> str:
    """Returns a count with its noun.

    Example:
        >>> plural(1, "image"), plural(3, "image"), plural(2, "class", "classes")
        ('1 image', '3 images', '2 classes')
    """
    return f"{count:,} {noun if count == 1 else plural_noun or noun + 's'}"


def or_list(names: Sequence[str]) -> str:
    """Joins names with commas and a final "or".

    Example:
        >>> or_list(["bce", "dice", "focal"])
        'bce, dice or focal'
    """
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def natural_sort_key(text: str) -> list[tuple[bool, int, str]]:
    """Returns a sort key that compares the digits in texts as numbers.

    Example:
        >>> sorted(["f10", "f9"], key=natural_sort_key)
        ['f9', 'f10']
    """
    return [
        (False, int(part), "") if part.isdecimal() else (True, 0, part.casefold()) for part in re.split(r"(\d+)", text)
    ]
