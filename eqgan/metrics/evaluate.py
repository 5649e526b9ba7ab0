"""All scores of one set of generated images against a reference, with where they come from."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .frechet import FeatureStatistics, frechet_distance
from .kernel import kernel_distance
from .neighbours import precision_recall_density_coverage
from .reference import Reference


@dataclass(frozen=True)
class Scores:
    """Scores of generated images; None where one was not asked for.

    Args:
        fid: Fréchet distance to the reference, at least 0, lower is better.
        precision: share of fakes near reals, in [0, 1].
        recall: share of reals near fakes, in [0, 1].
        density: crowding of fakes around reals, at least 0, 1 for equal distributions.
        coverage: share of reals with a fake nearby, in [0, 1].
        kernel_distance: mean of the unbiased MMD^2, 0 for equal distributions.
        provenance: feature network and hash, resize, reference data and split, numbers of samples, settings.
    """

    fid: float
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    kernel_distance: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, ready for `json.dumps`.

        >>> Scores(fid=1.5).as_dict()["fid"]
        1.5
        """
        return asdict(self)


def score_features(
    fake_features: Float[Tensor, "samples features"],
    reference: Reference,
    neighbours: bool = True,
    *,
    kernel: bool = False,
    k: int = 5,
    generator: torch.Generator | None = None,
) -> Scores:
    """Score features of generated images against a reference made with the same feature network.

    Neighbours are sought among the rows the reference kept and as many fakes, the first ones; the numbers
    used are part of the provenance.

    Args:
        fake_features: from the reference's feature network; rows in no particular order.
        reference: see `reference_statistics`.
        neighbours: whether to compute precision, recall, density and coverage (a second for 10,000 x 10,000).
        kernel: whether to compute the kernel distance (100 subsets of at most 1,000).
        k: which neighbour bounds a ball.
        generator: draws the subsets of the kernel distance; None: one seeded with 0, so that the result is
            repeatable.

    Raises:
        ValueError: Another number of features than the reference's, too few samples, non-finite features.
    """
    provenance = {**reference.provenance, "samples": len(fake_features)}
    fid = frechet_distance(reference.statistics, FeatureStatistics.from_features(fake_features)).item()
    real, fake = reference.features, fake_features[: len(reference.features)]
    values: dict[str, float] = {}
    if neighbours:
        shares = precision_recall_density_coverage(real.to(fake.device), fake, k)
        values |= {name: value.item() for name, value in shares._asdict().items()}
        provenance["neighbours"] = {"k": k, "real": len(real), "fake": len(fake)}
    if kernel:
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        size, subsets = min(1000, len(real), len(fake)), 100
        mean, std = kernel_distance(
            real.to(fake.device), fake, subset_size=size, subsets=subsets, generator=generator
        )
        values["kernel_distance"] = mean.item()
        provenance["kernel"] = {"degree": 3, "subset_size": size, "subsets": subsets, "std": std.item()}
    return Scores(fid=fid, **values, provenance=provenance)
