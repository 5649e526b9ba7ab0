"""The adversarial game as one bare loop: no Lightning, no callbacks, no classes. Losses are written out."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "ns":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if kind == "rp":
        return F.softplus(fake - real).mean()
    return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()


def generator_loss(kind: str, discriminator: Change, real: Tensor, fake: Tensor) -> Tensor:
    if kind in ("ra", "rp"):
        return discriminator_loss(kind, discriminator(fake), discriminator(real).detach())
    score = discriminator(fake)
    return -score.mean() if kind == "hinge" else F.softplus(-score).mean()


def r1(discriminator: Change, real: Tensor) -> Tensor:
    """Mean squared norm of the gradient at the reals."""
    real = real.clone().requires_grad_()
    gradient = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)[0]
    return (gradient**2).sum((1, 2, 3)).mean()


@torch.no_grad()
def average_in(average: nn.Module, generator: nn.Module, updates: int, decay: float) -> None:
    """The first update copies; later ones keep min(decay, (1 + n) / (10 + n)), n being those before. Spectral
    norms are of the averaged weights: the power iteration goes on with these."""
    normed = [layer for layer in average.modules() if hasattr(getattr(layer, "norm", None), "u")]
    vectors = [vector for layer in normed for vector in (layer.norm.u, layer.norm.v)]
    before = [vector.clone() for vector in vectors]
    keep = 0.0 if updates == 0 else min(decay, (1 + updates) / (10 + updates))
    old = [*average.parameters(), *average.buffers()]
    for mean, now in zip(old, [*generator.parameters(), *generator.buffers()]):
        if mean.is_floating_point() and updates > 0:
            mean.lerp_(now, 1 - keep)
        else:
            mean.copy_(now)
    for vector, own in zip(vectors, before):
        vector.copy_(own)
    for layer in normed:
        matrix = layer.weight if isinstance(layer, nn.Linear) else layer.expand(layer.weight).flatten(1)
        layer.norm.v.copy_(F.normalize(matrix.T @ layer.norm.u, dim=0))
        layer.norm.u.copy_(F.normalize(matrix @ layer.norm.v, dim=0))


def train(
    generator: nn.Module,
    discriminator: nn.Module,
    batches: list[Tensor],
    latent_dim: int,
    *,
    loss: str,
    gamma: float,
    every: int,
    rates: tuple[float, float],
    betas: tuple[float, float],
    discriminator_steps: int,
    decay: float,
    labels: list[Tensor] | None = None,
    change: Change = lambda images: images,
    r2: bool = False,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Trains both networks in place; returns the averaged generator and what each batch gave.

    Args:
        labels: of each batch, given to both networks.
        change: made to real and to generated images before the discriminator sees them.
        r2: whether the penalty counts at generated images too.
    """
    average = copy.deepcopy(generator)
    g_adam = torch.optim.Adam(generator.parameters(), rates[0], betas, fused=True)
    d_adam = torch.optim.Adam(discriminator.parameters(), rates[1], betas, fused=True)
    records, updates = [], 0
    for number, real in enumerate(batches):
        given = () if labels is None else (labels[number],)
        fake = generator(torch.randn(len(real), latent_dim), *given)
        real, seen = change(real), change(fake.detach())
        scores = discriminator(torch.cat([real, seen]), *(torch.cat([y, y]) for y in given))
        d_loss = discriminator_loss(loss, scores[: len(real)], scores[len(real) :])

        def score(images: Tensor, given: tuple[Tensor, ...] = given) -> Tensor:
            return discriminator(images, *given)

        penalty: Tensor | float = 0.0
        if gamma > 0 and number % every == 0:
            penalty = 0.5 * gamma * every * (r1(score, real) + (r1(score, seen) if r2 else 0.0))
        d_adam.zero_grad()
        (d_loss + penalty).backward()
        d_adam.step()
        record = {"d_loss": d_loss.item()}
        if (number + 1) % discriminator_steps == 0:
            g_loss = generator_loss(loss, score, real, change(fake))
            g_adam.zero_grad()
            g_loss.backward()
            g_adam.step()
            average_in(average, generator, updates, decay)
            updates += 1
            record["g_loss"] = g_loss.item()
        records.append(record)
    return average, records
