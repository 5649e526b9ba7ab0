"""The kernel distance against sums over pairs and against torchmetrics."""

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

import eqgan.metrics.kernel as kernel_module
from eqgan.metrics import kernel_distance


def features(seed: int, rows: int, width: int = 3) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_pairs(x: torch.Tensor, y: torch.Tensor, degree: int, *, biased: bool = False) -> float:
    """The estimator from its definition; `biased` keeps the pairs of a sample with itself, which is wrong."""

    def kernel(a: list[float], b: list[float]) -> float:
        return (sum(p * q for p, q in zip(a, b)) / len(a) + 1) ** degree

    def within(points: list[list[float]]) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if biased or i != j]
        return sum(pairs) / len(pairs)

    xs, ys = x.tolist(), y.tolist()
    return within(xs) + within(ys) - 2 * sum(kernel(a, b) for a in xs for b in ys) / (len(xs) * len(ys))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_of_whole_sets_equal_to_sums_over_pairs(degree):
    real, fake = features(0, 12), features(1, 12) + 0.5
    mean, std = kernel_distance(real, fake, degree, subset_size=12, subsets=3)
    assert mean.item() == pytest.approx(by_pairs(real, fake, degree), rel=1e-12)
    assert std.item() < 1e-12
    assert mean.item() == pytest.approx(poly_mmd(real, fake, degree).item(), rel=1e-12)


def test_the_biased_estimator_is_noticed():
    real, fake = features(0, 12), features(1, 12) + 0.5
    mean, _ = kernel_distance(real, fake, subset_size=12, subsets=1)
    assert mean.item() != pytest.approx(by_pairs(real, fake, 3, biased=True), rel=1e-2)


def test_mean_and_spread_are_those_of_the_subsets(monkeypatch):
    real, fake = features(0, 30), features(1, 40) + 0.2
    monkeypatch.setattr(kernel_module, "_ENTRIES", 2 * 10**2)  # two subsets at once, the last one alone
    mean, std = kernel_distance(real, fake, subset_size=10, subsets=7, generator=seeded())
    generator = seeded()
    x = [real[torch.randperm(30, generator=generator)[:10]] for _ in range(7)]
    y = [fake[torch.randperm(40, generator=generator)[:10]] for _ in range(7)]
    values = torch.tensor([by_pairs(a, b, 3) for a, b in zip(x, y)], dtype=torch.float64)
    assert mean.item() == pytest.approx(values.mean().item(), rel=1e-10)
    assert std.item() == pytest.approx(values.std(correction=0).item(), rel=1e-10)


def test_the_generator_decides():
    real, fake = features(0, 50), features(1, 50)
    first, again, other = (
        kernel_distance(real, fake, subset_size=10, subsets=5, generator=seeded(s)) for s in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_around_zero_for_equal_distributions_and_large_for_others():
    real, same, other = features(0, 400), features(1, 400), features(2, 400) * 1.5
    near, spread = kernel_distance(real, same, subset_size=100, subsets=20, generator=seeded())
    far, _ = kernel_distance(real, other, subset_size=100, subsets=20, generator=seeded())
    assert abs(near) < 2 * spread
    assert far > 10 * abs(near)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"subset_size": 21},
            "subset_size=21, but there are 20 real and 30 fake samples. Pass subset_size=20",
        ),
        ({"subset_size": 1}, "subset_size=1"),
        ({"subset_size": 5, "subsets": 0}, "subsets=0"),
        ({"subset_size": 5, "degree": 0}, "degree=0"),
    ],
)
def test_sizes_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        kernel_distance(features(0, 20), features(1, 30), **arguments)


def test_bad_features_are_named():
    with pytest.raises(ValueError, match="3 columns and fake features 2"):
        kernel_distance(features(0, 20), features(1, 20, 2), subset_size=5)
    with pytest.raises(ValueError, match="20 of 20 rows"):
        kernel_distance(features(0, 20), features(1, 20) / 0, subset_size=5)
