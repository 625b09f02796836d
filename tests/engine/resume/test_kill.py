"""A run that is killed at any moment resumes from its last checkpoint and ends with the same weights."""

import json

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "tests/helpers/kill_at_random.py"


@pytest.mark.slow
def test_fifty_kills_change_nothing(run_python, tmp_path):
    unbroken = run_python("-W", "ignore", SCRIPT, tmp_path / "unbroken", "0", "0")
    assert unbroken.returncode == 0, unbroken.stderr[-3000:]
    killed = run_python("-W", "ignore", SCRIPT, tmp_path / "killed", "50", "1")
    assert killed.returncode == 0, killed.stderr[-3000:]
    expected, found = (json.loads(done.stdout.splitlines()[-1]) for done in (unbroken, killed))
    print(found)
    assert found["kills"] == 50
    assert found["during_writes"] > 0, "some kills happen during a write"
    assert found["hash"] == expected["hash"]
