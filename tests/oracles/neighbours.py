"""Precision, recall, density and coverage from their definitions, by loops over points in Python floats."""

from collections.abc import Sequence

Points = Sequence[Sequence[float]]


def squared_distance(x: Sequence[float], y: Sequence[float]) -> float:
    """Sum of squared differences, coordinate by coordinate."""
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def ball(points: Points, index: int, k: int, *, count_itself: bool = False) -> float:
    """Squared radius of the ball around one point that reaches its k-th nearest neighbour.

    `count_itself` is the mistake of taking the point for its own first neighbour: tests use it to see that
    a comparison with this oracle can fail.
    """
    others = [
        squared_distance(points[index], other) for j, other in enumerate(points) if count_itself or j != index
    ]
    return sorted(others)[k - 1]


def shares(real: Points, fake: Points, k: int, *, count_itself: bool = False) -> dict[str, float]:
    """The four shares, each read off its definition."""
    real_balls = [ball(real, i, k, count_itself=count_itself) for i in range(len(real))]
    fake_balls = [ball(fake, j, k, count_itself=count_itself) for j in range(len(fake))]
    in_real = [[squared_distance(x, y) <= radius for y in fake] for x, radius in zip(real, real_balls)]
    in_fake = [[squared_distance(x, y) <= radius for y, radius in zip(fake, fake_balls)] for x in real]
    return {
        "precision": sum(any(row[j] for row in in_real) for j in range(len(fake))) / len(fake),
        "recall": sum(any(row) for row in in_fake) / len(real),
        "density": sum(map(sum, in_real)) / (k * len(fake)),
        "coverage": sum(any(row) for row in in_real) / len(real),
    }
