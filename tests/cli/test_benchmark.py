"""`maskrcnn-ext benchmark`: wrong arguments are refused in one line."""

from maskrcnn_ext.cli import main


def test_wrong_numbers_are_refused(capsys):
    assert main(["benchmark", "poolers", "--repeats", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
