"""Real irreps and the Fourier transform of any finite group: orthogonality, and the direct convolution."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from eqgan.groups import C2, C4, D1, D2, D4, POINT_GROUPS, regular, square_window
from eqgan.groups.fourier import GroupFourier, group_fourier, table_fourier
from eqgan.groups.plane import P2, P2MM, P4, P4M, PM, Z2
from eqgan.nn import GroupConv2d
from tests.oracles.fourier import fourier_convolution
from tests.oracles.groups import cayley_table

EXACT = (C2, C4, D1, D2, D4)


def cyclic(order: int) -> np.ndarray:
    return np.add.outer(np.arange(order), np.arange(order)) % order


def quaternions() -> np.ndarray:
    """The eight units: 1, i, j, k, and their negatives; neither cyclic nor dihedral, of quaternionic type."""
    positive = np.array([[0, 1, 2, 3], [1, 4, 3, 6], [2, 7, 4, 1], [3, 2, 5, 4]])  # 4 + n is minus n
    negative = (positive + 4) % 8
    return np.block([[positive, negative], [negative, positive]])


def symmetric(letters: int) -> np.ndarray:
    return cayley_table(list(itertools.permutations(range(letters))))


TABLES = {name: group.product for name, group in POINT_GROUPS.items()} | {
    "C5": cyclic(5),
    "C8": cyclic(8),
    "C16": cyclic(16),
    "Q8": quaternions(),
    "S4": symmetric(4),
}
ALL = pytest.mark.parametrize("product", TABLES.values(), ids=TABLES)


@ALL
def test_irreps_are_homomorphisms_and_orthogonal(product):
    for irrep in table_fourier(product).irreps:
        m = irrep.matrices
        np.testing.assert_allclose(np.einsum("gij,hjk->ghik", m, m), m[product], atol=1e-12)
        unit = np.broadcast_to(np.eye(irrep.dim), m.shape)
        np.testing.assert_allclose(m @ m.transpose(0, 2, 1), unit, atol=1e-12)


@ALL
def test_rows_are_complete_and_orthogonal(product):
    transform = table_fourier(product)
    lengths = np.concatenate([[i.dim] * (i.copies * i.dim) for i in transform.irreps])
    assert transform.analysis.shape == (len(product), len(product))
    expected = np.diag(len(product) / lengths)
    np.testing.assert_allclose(transform.analysis @ transform.analysis.T, expected, atol=1e-10)


def require_convolution(transform: GroupFourier) -> None:
    random = np.random.default_rng(0)
    f, k = random.standard_normal((2, transform.order))
    direct = np.array([k @ f[transform.product[s]] for s in range(transform.order)])
    np.testing.assert_allclose(transform.convolve(f, k), direct, atol=1e-10)


@ALL
def test_convolution_is_products_of_blocks(product):
    require_convolution(table_fourier(product))


def test_a_missing_irrep_fails():
    whole = group_fourier(D4)
    with pytest.raises(AssertionError):
        require_convolution(GroupFourier(whole.product, whole.irreps[:-1]))


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("C2", Fraction(1, 2)),
        ("C4", Fraction(6, 16)),
        ("D4", Fraction(12, 64)),
        ("C6", Fraction(10, 36)),
        ("D6", Fraction(20, 144)),
        ("C8", Fraction(14, 64)),
        ("C16", Fraction(30, 256)),
    ],
)
def test_multiplications(name, share):
    """Sum of dim^3 over order^2, a complex type counting half."""
    transform = table_fourier(TABLES[name])
    assert Fraction(transform.multiplications, transform.order**2) == share


def test_types():
    """Real, complex and quaternionic types, as every textbook lists them."""

    def types(name):
        return [(i.dim, i.field) for i in table_fourier(TABLES[name]).irreps]

    assert types("C4") == [(1, 1), (1, 1), (2, 2)]
    assert types("D4") == [(1, 1)] * 4 + [(2, 1)]
    assert types("Q8") == [(1, 1)] * 4 + [(4, 4)]
    assert types("S4") == [(1, 1), (1, 1), (2, 1), (3, 1), (3, 1)]
    assert types("C5") == [(1, 1), (2, 2), (2, 2)]


@pytest.mark.parametrize("group", EXACT, ids=str)
def test_exact_on_the_square_lattice(group):
    transform = group_fourier(group)
    assert set(np.unique(transform.analysis)) <= {-1.0, 0.0, 1.0}
    assert (np.round(transform.filter_matrix * group.order) == transform.filter_matrix * group.order).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("plane", [Z2, P2, PM, P4, P2MM, P4M], ids=str)
def test_the_algorithm_is_the_bank_convolution(plane, size):
    """Through co-rotated patches, in float64, for any window and padding, on maps that are not square."""
    import torch

    torch.manual_seed(size)
    order, padding = plane.order, size % 3
    layer = GroupConv2d(regular(plane, 2), regular(plane, 3), size, padding=padding, bias=False).double()
    x = torch.randn(2, 2 * order, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x).numpy()
    w = layer.weight.detach().numpy().reshape(3, 2, order, len(square_window(size)))
    out = fourier_convolution(plane.point_group, x.numpy().reshape(2, 2, order, 5, 6), w, size, padding)
    np.testing.assert_allclose(out.reshape(expected.shape), expected, atol=1e-12)
