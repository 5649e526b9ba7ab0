"""The kernels of Triton compute what the filter bank does; here run by Triton's interpreter, on the CPU.

The interpreter is chosen when triton is first imported: the tests below run in a process of their own.
"""

import os
import subprocess
import sys

import pytest
import torch

from eqgan.groups import P2, P2MM, P4, P4M
from eqgan.nn.fourier import by_bank, triton_engine
from eqgan.nn.fourier.window import flat_generators

pytest.importorskip("triton")
inside = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not inside, reason="run by test_in_the_interpreter, in its own process")


@pytest.mark.skipif(inside, reason="this is that process")
def test_in_the_interpreter():
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(words, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(".") > 10, "they ran, and were not skipped"


def engine_of(plane):
    return triton_engine.triton_engine(plane.point_group)


def make(plane, fields_in, fields_out, size, shape, dtype=torch.float32):
    torch.manual_seed(0)
    batch, height, width = shape
    x = torch.randn(batch, fields_in * plane.order, height, width).to(dtype)
    weight = torch.randn(fields_out, fields_in, plane.order * size * size) / (size * fields_in**0.5)
    return x, weight, torch.randn(fields_out)


def close(ours, exact, tolerance):
    assert ours.shape == exact.shape
    assert (ours.double() - exact).abs().max() <= tolerance * exact.abs().max().clamp_min(1e-3)


CASES = [  # group, fields in and out, window, padding, batch and sides
    (P4, 2, 3, 3, 1, (2, 7, 5)),
    (P4M, 3, 2, 3, 1, (1, 6, 6)),
    (P2, 5, 17, 3, 0, (3, 5, 9)),
    (P2MM, 1, 2, 4, 2, (2, 5, 4)),
    (P4, 9, 4, 2, 3, (1, 4, 3)),
    (P4, 2, 2, 1, 0, (1, 4, 3)),
]


LOWER = [(torch.bfloat16, 2**-7, *CASES[0]), (torch.float16, 2**-9, *CASES[1])]


@interpreted
@pytest.mark.parametrize(
    ("dtype", "tolerance", "plane", "fields_in", "fields_out", "size", "padding", "shape"),
    [*((torch.float32, 3e-6, *case) for case in CASES), *LOWER],
    ids=str,
)
def test_agrees_with_the_bank(dtype, tolerance, plane, fields_in, fields_out, size, padding, shape):
    x, weight, bias = make(plane, fields_in, fields_out, size, shape, dtype)
    ours, where = engine_of(plane), (flat_generators(plane.point_group), size, padding)
    exact = by_bank.forward(x.double(), weight.double(), bias.double(), *where)
    y = ours.forward(x, weight, bias, size, padding)
    assert y.dtype == dtype
    close(y, exact, tolerance)
    close(
        ours.forward(x, weight, None, size, padding) + bias.repeat_interleave(plane.order)[:, None, None],
        exact,
        3 * tolerance,
    )
    grad = torch.randn_like(y)
    gradients = by_bank.backward(grad.double(), x.double(), weight.double(), *where, 1, True, True, True)
    found_ones = ours.backward(grad, x, weight, size, padding, (True, True, True))
    for found, expected in zip(found_ones, gradients, strict=True):
        close(found, expected, 2 * tolerance)


@interpreted
def test_only_what_is_needed():
    x, weight, _ = make(P4, 2, 3, 3, (2, 5, 5))
    grad = torch.randn(2, 12, 5, 5)
    for need in ((True, False, False), (False, True, False), (False, False, True)):
        found = engine_of(P4).backward(grad, x, weight, 3, 1, need)
        assert tuple(bool(tensor.numel()) for tensor in found) == need


@interpreted
def test_empty_batches_and_more_sites_than_a_split(monkeypatch):
    monkeypatch.setattr(triton_engine, "_SITES_A_SPLIT", 512)
    x, weight, bias = make(P4, 1, 1, 1, (2, 20, 29))
    ours, generators = engine_of(P4), flat_generators(P4.point_group)
    assert ours.forward(x[:0], weight, bias, 1, 0).shape == (0, 4, 20, 29)
    nothing, zero, _ = ours.backward(x[:0], x[:0], weight, 1, 0, (True, True, False))
    assert nothing.shape == (0, 4, 20, 29)
    assert not zero.any()
    _, gradient, _ = ours.backward(x, x, weight, 1, 0, (False, True, False))
    _, expected, _ = by_bank.backward(
        x.double(), x.double(), weight.double(), generators, 1, 0, 1, False, True, False
    )
    close(gradient, expected, 1e-5)


@interpreted
def test_a_wrong_table_fails():
    x, weight, bias = make(P4, 2, 3, 3, (1, 5, 5))
    exact = by_bank.forward(
        x.double(), weight.flip(2).double(), bias.double(), flat_generators(P4.point_group), 3, 1
    )
    with pytest.raises(AssertionError):
        close(engine_of(P4).forward(x, weight, bias, 3, 1), exact, 1e-2)


@interpreted
def test_more_sites_than_can_be_counted_are_the_banks():
    ours = engine_of(P4)
    assert ours.counts(255, (1024, 1024), (1024, 1024))
    assert not ours.counts(256, (1024, 1024), (1024, 1024)), "more splits than a grid has"
    assert not ours.counts(1, (2**15, 2**14), (1, 1)), "offsets within an image beyond 32 bits"


@interpreted
def test_a_damaged_module_is_written_again(monkeypatch, tmp_path):
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path))
    written = triton_engine.load_module(P4.point_group).__file__
    with open(written, "r+") as file:
        file.truncate(300)
    assert triton_engine.load_module(P4.point_group).products


def test_a_triton_that_does_not_serve_leaves_it_to_the_bank(monkeypatch, caplog):
    def broken(group):
        raise ImportError("libtriton is not for this machine")

    monkeypatch.setattr(triton_engine, "load_module", broken)
    assert triton_engine.triton_engine.__wrapped__(P4.point_group) is None
    assert "libtriton is not for this machine" in caplog.text


def test_tf32_where_recurrent_layers_are_set_otherwise():
    backend = torch.backends.cudnn
    if not hasattr(backend, "conv"):
        pytest.skip("this torch has one setting for both")
    before = backend.conv.fp32_precision, backend.rnn.fp32_precision
    try:
        backend.conv.fp32_precision, backend.rnn.fp32_precision = "tf32", "ieee"
        assert triton_engine._convolutions_in_tf32()
        backend.conv.fp32_precision = "ieee"
        assert not triton_engine._convolutions_in_tf32()
    finally:
        backend.conv.fp32_precision, backend.rnn.fp32_precision = before


def test_without_triton(monkeypatch):
    monkeypatch.setattr(triton_engine.importlib.util, "find_spec", lambda name: None)
    assert triton_engine.triton_engine.__wrapped__(P4.point_group) is None
