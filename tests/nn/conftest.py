import pytest


@pytest.fixture
def forced(monkeypatch):
    """The fast path wherever it can serve, whatever was measured."""
    monkeypatch.setenv("EQGAN_CONV", "fourier")
