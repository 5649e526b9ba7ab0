"""The programs that train many classifiers, whole, in their smallest form: digits, one epoch."""

import json
import subprocess
import sys

import pytest

from tests.programs import BENCHMARKS

CALLS = {
    "classify_rotmnist": ("--rows", "p4cnn+rotation,wide_p4", "--curve", "z2cnn", "--fractions", "0.1,0.5"),
    "classify_cifar10": (),
    "transfer": ("--rows", "p4,inflated_off_identity"),
}
RUNS = {"classify_rotmnist": 4, "classify_cifar10": 2, "transfer": 2}


@pytest.mark.parametrize("program", CALLS)
def test_its_check_trains_and_records(program, tmp_path):
    words = [sys.executable, str(BENCHMARKS / f"{program}.py"), "--check", *CALLS[program]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = tmp_path.rglob(f"{program}.json")
    assert tmp_path in results.parents, "a check replaces no result"
    found = json.loads(results.read_text())
    assert (found["form"], len(found["runs"])) == ("check", RUNS[program])
    for run in found["runs"].values():
        assert 0 <= run["test"]["digits"]["error"] <= 0.95  # of chance, 0.9: 44 layers have begun nothing
        assert run["settings"]["network"]["init_args"]
        assert str(tmp_path) not in json.dumps(run)
    assert list(tmp_path.rglob("*.png"))
