"""Runs that several tests look at: trained once a session, in a folder of their own."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.classifiers import ClassifierPlace
from tests.training.runs import Place


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the cache of whoever runs it; reference statistics are shared between runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Lightning leaves the interrupt ignored once it has seen one."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The folder of the runs that are shared; tests add to it under names of their own."""
    return Place(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def whole(shared: Place) -> str:
    """Four epochs without a stop."""
    shared.train("--name", "whole", "--epochs", "4")
    return "whole"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder for the runs of one test."""
    return Place(tmp_path)


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> ClassifierPlace:
    """The folder of the runs of classifiers that are shared."""
    return ClassifierPlace(tmp_path_factory.mktemp("classifiers"))


@pytest.fixture(scope="session")
def classified(classifiers: ClassifierPlace) -> str:
    """Four epochs of a classifier without a stop."""
    classifiers.train("--name", "whole", "--epochs", "4")
    return "whole"


@pytest.fixture
def small_place(tmp_path: Path) -> ClassifierPlace:
    """An empty folder for the classifiers of one test."""
    return ClassifierPlace(tmp_path)
