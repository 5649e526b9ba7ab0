import subprocess
import sys

import pytest

from eqgan.memory import keep_freed_memory

# Page faults of allocating and freeing the same large block again and again, in a fresh process.
FAULTS = """
import resource, torch
from eqgan.memory import keep_freed_memory
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
# the least of many: an aligned block may need a larger hole than the one it left
print(min(faults() for _ in range(12)))
"""


def faults(call: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_freed_block_is_used_again() -> None:
    assert faults("assert keep_freed_memory()") < 100 < faults("")


def test_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQGAN_MALLOC", "default")
    assert not keep_freed_memory()
