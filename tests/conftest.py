"""Shape annotations are checked under pytest only: beartype wraps every annotated function of the package."""

import os
import signal
import sys
from collections.abc import Iterator

import jaxtyping
import pytest

from tests.programs import BENCHMARKS

os.environ.setdefault("EQGAN_NO_DOWNLOAD", "1")  # tests never reach for the network
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # before torch counts the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
jaxtyping.install_import_hook("eqgan", "beartype.beartype")  # before anything imports eqgan
# A shell that starts the tests in the background leaves Ctrl-C ignored; the tests of interrupts need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """For torch.compile and torch.export, which cannot trace the type checker; users run without it."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="module")
def beside_each_other() -> Iterator[None]:
    """As when one of the programs is called, they find each other."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))
