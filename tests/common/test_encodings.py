"""Unicode is read in each of its encodings; the error for others names the encoding and the command."""

import shutil
import subprocess

import pytest

from maskrcnn_ext.common.encodings import decode
from maskrcnn_ext.errors import InputError

TEXT = "names: [\u732b, \u72d7, caf\u00e9]\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_of_unicode_is_read(encoding):
    assert decode(TEXT.encode(encoding), "a.yaml") == TEXT


def test_an_empty_file_is_an_empty_text():
    assert decode(b"", "a.txt") == ""


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        ("\u732b\u548c\u72d7 cat", "gb18030", "gb18030"),
        ("\u732b\u3068\u72ac\u306e\u753b\u50cf\u3067\u3059\u30cd\u30b3", "shift_jis", "shift_jis"),
        ("M\u00fcnchen, caf\u00e9", "cp1252", "cp1252"),
    ],
)
def test_other_encodings_are_named_with_the_command(text, encoding, likely, tmp_path):
    file = tmp_path / "my labels.txt"
    file.write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match="not UTF-8, probably") as caught:
        decode(file.read_bytes(), file)
    message = str(caught.value)
    assert likely in message.partition("; convert it: ")[0]
    command = message.partition("; convert it: ")[2]
    assert command.endswith("-t utf-8 'my labels.txt' > 'my labels.utf8.txt'")
    if likely == encoding and f"-f {encoding} " in command and shutil.which("iconv"):
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        assert (tmp_path / "my labels.utf8.txt").read_text(encoding="utf-8") == text
