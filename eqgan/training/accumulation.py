"""A batch of the game in micro-batches, one after the other: the same step in less memory.

No graph outlives its micro-batch: images are drawn without one for the discriminator, and once more, from the
same random numbers, for the generator. A loss that looks at the whole batch (``GANLoss.couples_scores``) gets
all scores from a pass of their own; its slope in each score then goes backwards, one micro-batch at a time.

References:
    Gao et al., arXiv:2101.06983: gradients of a loss of the whole batch, by caching its slopes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from eqgan.training.ranks import gathered, mean, world_size

if TYPE_CHECKING:
    from eqgan.training.module import GAN


class Draws:
    """The random numbers from here on, to be drawn once more as they were."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within, the same numbers; afterwards those that would have come."""
        with torch.random.fork_rng([] if self.cuda is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield


class Part(NamedTuple):
    """A micro-batch: latents, labels, what the discriminator sees, and the draws of the generator."""

    latents: Tensor
    labels: Tensor | None
    real: Tensor
    fake: Tensor
    draws: Draws


Judge = Callable[[Part], tuple[Tensor, Tensor | float]]
"""Scores of a part, (2, images), and its class loss."""


def play_in_parts(gan: "GAN", real: Tensor, latents: Tensor, labels: Tensor | None) -> None:
    """One batch of the game, as ``GAN.play``."""
    generator_optimizer, discriminator_optimizer = gan.optimizers()
    count = gan.accumulate
    split_labels = [None] * count if labels is None else labels.chunk(count)
    parts = [_part(gan, *given) for given in zip(real.chunk(count), latents.chunk(count), split_labels)]

    discriminator_optimizer.optimizer.zero_grad()
    scores, loss, class_loss = _backward(
        gan, parts, lambda part: _both_judged(gan, part), lambda s: gan.loss.discriminator(s[0], s[1])
    )
    if gan.penalty_due():
        whole = 0.0
        for part in parts:
            penalty = _share(part, parts) * gan.penalty_of(part.real, part.fake, part.labels)
            gan.manual_backward(penalty / world_size())
            whole = whole + penalty.detach()
        gan.record(penalty=mean(whole) / gan.penalty.every)
    gan.take_step(discriminator_optimizer, gan.discriminator, counts=False)
    gan.record(d_loss=loss, d_class_loss=class_loss)
    gan.record(score_real=scores[0].mean(), score_fake=scores[1].mean())
    gan.observe(scores[0], scores[1])

    if gan.generator_due():
        gan.discriminator.requires_grad_(False)
        generator_optimizer.optimizer.zero_grad()
        needed = gan.loss.generator_sees_reals
        _, loss, class_loss = _backward(
            *(gan, parts, lambda part: _drawn_judged(gan, part)),
            lambda s: gan.loss.generator(s[0], s[1] if needed else None),
        )
        gan.take_step(generator_optimizer, gan.generator, counts=True)
        gan.discriminator.requires_grad_(True)
        gan.ema.update_parameters(gan.generator)
        gan.record(g_loss=loss, g_class_loss=class_loss)


def _part(gan: "GAN", real: Tensor, latents: Tensor, labels: Tensor | None) -> Part:
    draws = Draws(gan.device)
    with torch.no_grad():
        fake = gan.draw(latents, labels)
    return Part(latents, labels, gan.augmented(real), gan.augmented(fake), draws)


def _both_judged(gan: "GAN", part: Part) -> tuple[Tensor, Tensor | float]:
    labels = None if part.labels is None else part.labels.repeat(2)
    scores, class_loss = gan.judged(torch.cat([part.real, part.fake]), labels)
    return scores.view(2, -1), class_loss


def _drawn_judged(gan: "GAN", part: Part) -> tuple[Tensor, Tensor | float]:
    with part.draws.again():
        fake = gan.draw(part.latents, part.labels)
    scores, class_loss = gan.judged(gan.augmented(fake), part.labels)
    reals = torch.zeros_like(scores)
    if gan.loss.generator_sees_reals:
        with torch.no_grad():
            reals = gan.judged(part.real, part.labels)[0]
    return torch.stack([scores, reals]), class_loss


def _backward(
    gan: "GAN", parts: Sequence[Part], judge: Judge, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Any]:
    """Adds the gradient of a loss of all scores, and of the class losses.

    Returns:
        All scores, (2, images of all processes), the loss, and the class loss.
    """
    if gan.loss.couples_scores:
        draws, found = [], []
        with torch.no_grad():
            for part in parts:
                draws.append(Draws(gan.device))
                found.append(judge(part)[0])
        leaf = torch.cat(found, 1).requires_grad_()
        value = loss(gathered(leaf.T).T)
        slopes = torch.autograd.grad(value, leaf)[0].split([len(part.real) for part in parts], 1)
    scores, values, class_losses = [], [], []
    for number, part in enumerate(parts):
        share = _share(part, parts) / world_size()
        if gan.loss.couples_scores:
            with draws[number].again():
                own, class_loss = judge(part)
            gan.manual_backward((own * slopes[number]).sum() + share * class_loss)
        else:
            own, class_loss = judge(part)
            values.append(loss(own))
            gan.manual_backward(share * (values[-1] + class_loss))
        scores.append(own.detach())
        class_losses.append(_share(part, parts) * class_loss)
    if not gan.loss.couples_scores:
        value = mean(sum(_share(part, parts) * v.detach() for part, v in zip(parts, values)))
    return gathered(torch.cat(scores, 1).T).T, value, mean(sum(class_losses))


def _share(part: Part, parts: Sequence[Part]) -> float:
    return len(part.real) / sum(len(other.real) for other in parts)
