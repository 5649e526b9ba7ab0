"""The adversarial game as a Lightning module; its training step reads like the algorithm."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from eqgan.data.augment import Augmentation
from eqgan.networks import Discriminator, Generator
from eqgan.training.accumulation import play_in_parts
from eqgan.training.augment import AdaptiveAugmentation
from eqgan.training.compiling import compile_network, eager, renew_norms
from eqgan.training.ema import ema_generator
from eqgan.training.losses import GANLoss, RelativisticAverageLoss
from eqgan.training.penalties import Penalty, R1Penalty
from eqgan.training.ranks import gathered, mean, own_randomness, own_share, sum_gradients, world_size


class GAN(pl.LightningModule):
    """A generator and a discriminator trained against each other.

    One batch is one discriminator step; every ``discriminator_steps`` batches the generator steps too, and
    ``global_step`` counts those. Samples and metrics use ``ema``, the averaged generator.

    If the networks are conditional, generated images have the labels of the batch's real ones.

    Args:
        generator, discriminator: networks for images of one shape, and both for the same classes or none.
        loss: adversarial loss.
        penalty: on the discriminator, at the images it sees.
        augmentation: of all images that the discriminator sees, real or generated; None leaves them.
        lr_generator, lr_discriminator: Adam's rates (two time scales, arXiv:1706.08500).
        betas: of both Adams.
        discriminator_steps: discriminator steps to one generator step.
        ema_decay: of the averaged generator, per generator step.
        auxiliary_weight: of the class loss of a discriminator with an auxiliary classifier, in both losses
            (arXiv:1610.09585: 1, over real and generated images).
        accumulate: micro-batches, one after the other, that a batch is split into to save memory; batch norms
            see one at a time.

    Raises:
        ValueError: if the two networks are made for images of different shapes or different classes, or a
            number is out of range.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        loss: GANLoss | None = None,
        penalty: Penalty | None = None,
        augmentation: Augmentation | None = None,
        lr_generator: float = 5e-4,
        lr_discriminator: float = 5e-4,
        betas: tuple[float, float] = (0.5, 0.99),
        discriminator_steps: int = 1,
        ema_decay: float = 0.999,
        auxiliary_weight: float = 1.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        if generator.image_shape != discriminator.image_shape:
            raise ValueError(
                f"the generator draws {generator.image_shape} images, "
                f"the discriminator sees {discriminator.image_shape}"
            )
        if generator.num_classes != discriminator.num_classes:
            raise ValueError(
                f"the generator draws images of {generator.num_classes} classes, the discriminator is for "
                f"{discriminator.num_classes}: expected the same number, 0 for images without labels"
            )
        if discriminator_steps < 1 or auxiliary_weight < 0:
            raise ValueError(
                f"expected at least 1 discriminator step, got {discriminator_steps}, and an auxiliary weight "
                f"of at least 0, got {auxiliary_weight}"
            )
        if accumulate < 1:
            raise ValueError(f"--accumulate: expected at least 1, got {accumulate}")
        if min(lr_generator, lr_discriminator) < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                "expected learning rates of at least 0 and betas in [0, 1), got "
                f"lr_generator={lr_generator}, lr_discriminator={lr_discriminator}, betas={betas}"
            )
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self.ema = ema_generator(generator, ema_decay)
        self.loss = loss or RelativisticAverageLoss()
        self.penalty = penalty or R1Penalty()
        self.augmentation, self.auxiliary_weight = augmentation, auxiliary_weight
        self.lr_generator, self.lr_discriminator, self.betas = lr_generator, lr_discriminator, betas
        self.discriminator_steps, self.accumulate = discriminator_steps, accumulate
        self.register_buffer("discriminator_step", torch.zeros((), dtype=torch.long))
        self._steps: int | None = None  # the same number, known without waiting for the device
        self.register_load_state_dict_post_hook(_forget_steps)
        self._compiled = False
        self.records: dict[str, Tensor] = {}
        self.norms_due: set[str] = set()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        rates = ((self.generator, self.lr_generator), (self.discriminator, self.lr_discriminator))
        return [torch.optim.Adam(n.parameters(), lr=lr, betas=self.betas, fused=True) for n, lr in rates]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        real, labels = batch if self.num_classes else (batch[0], None)
        if batch_idx % self.trainer.log_every_n_steps == 0:
            self.norms_due = {"generator", "discriminator"}
        latents = own_share(self.generator.draw_latents(len(real) * world_size()))
        with own_randomness(self.device):
            if self.accumulate == 1:
                self.play(real, latents, labels)
            else:
                play_in_parts(self, real, latents, labels)

    def play(self, real: Tensor, latents: Tensor, labels: Tensor | None) -> None:
        """One batch of the game; of several processes each has a share, and the losses see all scores."""
        generator_optimizer, discriminator_optimizer = self.optimizers()
        fake = self.draw(latents, labels)

        seen = self.augmented(real), self.augmented(fake.detach())
        scores, class_loss = self.judged(torch.cat(seen), None if labels is None else labels.repeat(2))
        real_score, fake_score = (gathered(part) for part in scores.split([len(real), len(fake)]))
        loss = self.loss.discriminator(real_score, fake_score)
        share = 1 / world_size()  # of what is a mean over images, and not over all scores
        penalty = self.penalty_now(*seen, labels)
        whole = loss + share * class_loss + share * penalty
        self.step(discriminator_optimizer, self.discriminator, whole, counts=False)
        self.record(d_loss=loss, d_class_loss=mean(class_loss))
        self.record(score_real=real_score.mean(), score_fake=fake_score.mean())
        self.observe(real_score.detach(), fake_score.detach())

        if self.generator_due():
            self.discriminator.requires_grad_(False)  # its weights need no gradient here
            scores, class_loss = self.judged(self.augmented(fake), labels)
            loss = self.loss.generator(gathered(scores), self.reals_for_generator(seen[0], labels))
            self.step(generator_optimizer, self.generator, loss + share * class_loss, counts=True)
            self.discriminator.requires_grad_(True)
            self.ema.update_parameters(self.generator)
            self.record(g_loss=loss, g_class_loss=mean(class_loss))

    def compile_networks(self, backend: str) -> None:
        """Compiles the two networks that are trained; the averaged one stays as it is."""
        self._compiled = True
        for network in (self.generator, self.discriminator):
            compile_network(network, backend)

    @property
    def num_classes(self) -> int:
        """0 without labels."""
        return self.generator.num_classes

    def draw(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Images of the generator that is trained."""
        return self.generator(latents) if labels is None else self.generator(latents, labels)

    def augmented(self, images: Tensor) -> Tensor:
        """What the discriminator sees of these images."""
        return images if self.augmentation is None else self.augmentation(images)

    def judged(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """Scores of images, in float32 whatever the precision of the networks, and the weighted loss of an
        auxiliary classifier, 0 where there is none."""
        if self._compiled:
            renew_norms(self.discriminator)
        if labels is None:
            return self.discriminator(images).float(), 0.0
        scores, logits = self.discriminator.judge(images, labels)
        if logits is None:
            return scores.float(), 0.0
        return scores.float(), self.auxiliary_weight * F.cross_entropy(logits.float(), labels)

    @torch.no_grad()
    def reals_for_generator(self, real: Tensor, labels: Tensor | None) -> Tensor | None:
        """Scores of reals where the generator's loss needs them: no gradient goes through them, so they take
        a pass of their own instead of half of the backward one."""
        return gathered(self.judged(real, labels)[0]) if self.loss.generator_sees_reals else None

    def observe(self, real_score: Tensor, fake_score: Tensor) -> None:
        """Tells an adaptive augmentation how the real images were scored; of a relativistic loss, above the
        generated ones, for its scores have no zero."""
        if isinstance(self.augmentation, AdaptiveAugmentation):
            self.augmentation.observe(
                real_score, fake_score.mean() if self.loss.generator_sees_reals else 0.0
            )
            self.record(augment_probability=self.augmentation.probability.clone())

    def steps_taken(self) -> int:
        """How many discriminator steps there were."""
        if self._steps is None:
            self._steps = int(self.discriminator_step)
        return self._steps

    def generator_due(self) -> bool:
        """Whether the generator steps too; counted across epochs."""
        return self.steps_taken() % self.discriminator_steps == 0

    def penalty_due(self) -> bool:
        """Whether this discriminator step has a penalty; counts the step."""
        step = self.steps_taken()
        self._steps = step + 1
        self.discriminator_step += 1
        return self.penalty.due(step)

    def penalty_now(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor | float:
        """The penalty if this discriminator step is due for one, else 0."""
        return self.penalty_of(real, fake, labels) if self.penalty_due() else 0.0

    def penalty_of(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """The penalty at these images."""
        with eager(self.discriminator):
            value = self.penalty(lambda images: self.judged(images, labels)[0], real, fake)
        self.record(penalty=mean(value) / self.penalty.every)
        return value

    def step(self, optimizer: Any, network: torch.nn.Module, loss: Tensor, counts: bool) -> None:
        """Backward and one optimiser step."""
        optimizer.optimizer.zero_grad()
        self.manual_backward(loss)
        self.take_step(optimizer, network, counts)

    def take_step(self, optimizer: Any, network: torch.nn.Module, counts: bool) -> None:
        """One optimiser step, by the gradients of all processes. Lightning counts steps of its own wrapper as
        ``global_step``; the discriminator's go through the strategy directly, so that only the generator's
        are counted."""
        sum_gradients(network.parameters())
        role = "generator" if network is self.generator else "discriminator"
        if role in self.norms_due:  # the next step of either, which need not be in the same batch
            self.norms_due.discard(role)
            self.record(**{f"gradient_norm_{role}": _gradient_norm(network)})
        if counts:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, closure=lambda: None, model=self)

    def record(self, **values: Tensor | float) -> None:
        """Keeps numbers of this step for the callbacks, detached and on the device: no waiting for them. What
        is no tensor is the 0 of something that this game does not have."""
        self.records.update({n: value.detach() for n, value in values.items() if isinstance(value, Tensor)})

    def sample(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [-1, 1] of the averaged generator, which no training step disturbs."""
        return torch.cat([images for images, _ in self.sampled(latents, labels)])

    def sampled(
        self, latents: Tensor, labels: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """``sample`` in pieces with their labels, so that many images need no more memory than a thousand."""
        generator = self.ema.module.eval()
        for some, given in self.pieces(latents, labels):
            with torch.inference_mode():  # not around the yield: what is between two pieces is the caller's
                images = generator(some) if given is None else generator(some, given)
            yield images, given

    @staticmethod
    def pieces(latents: Tensor, labels: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Latents and labels, as many at a time as are drawn at once."""
        size = 1000 if latents.is_cuda else 125  # a CPU is faster when the activations stay in its cache
        for start in range(0, len(latents), size):
            some = slice(start, start + size)
            yield latents[some], None if labels is None else labels[some].to(latents.device)


def _forget_steps(gan: GAN, _: Any) -> None:
    gan._steps = None


def _gradient_norm(network: torch.nn.Module) -> Tensor:
    norms = torch._foreach_norm([p.grad for p in network.parameters() if p.grad is not None])
    return torch.stack(norms).norm()
