"""The adversarial game as a Lightning module; its training step reads like the algorithm."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from eqgan.networks import Discriminator, Generator
from eqgan.training.ema import ema_generator
from eqgan.training.losses import GANLoss, RelativisticAverageLoss
from eqgan.training.penalties import Penalty, R1Penalty


class GAN(pl.LightningModule):
    """A generator and a discriminator trained against each other.

    One batch is one discriminator step; every ``discriminator_steps`` batches the generator steps too, and
    ``global_step`` counts those. Samples and metrics use ``ema``, the averaged generator.

    Args:
        generator, discriminator: networks for images of one shape.
        loss: adversarial loss.
        penalty: on the discriminator.
        lr_generator, lr_discriminator: Adam's rates (two time scales, arXiv:1706.08500).
        betas: of both Adams.
        discriminator_steps: discriminator steps to one generator step.
        ema_decay: of the averaged generator, per generator step.

    Raises:
        ValueError: if the two networks are made for images of different shapes, or a number is out of range.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        loss: GANLoss | None = None,
        penalty: Penalty | None = None,
        lr_generator: float = 5e-4,
        lr_discriminator: float = 5e-4,
        betas: tuple[float, float] = (0.5, 0.99),
        discriminator_steps: int = 1,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__()
        if generator.image_shape != discriminator.image_shape:
            raise ValueError(
                f"the generator draws {generator.image_shape} images, "
                f"the discriminator sees {discriminator.image_shape}"
            )
        if discriminator_steps < 1:
            raise ValueError(f"expected at least 1 discriminator step, got {discriminator_steps}")
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
        self.lr_generator, self.lr_discriminator, self.betas = lr_generator, lr_discriminator, betas
        self.discriminator_steps = discriminator_steps
        self.register_buffer("discriminator_step", torch.zeros((), dtype=torch.long))
        self.records: dict[str, Tensor] = {}
        self.norms_due: set[str] = set()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        rates = ((self.generator, self.lr_generator), (self.discriminator, self.lr_discriminator))
        return [torch.optim.Adam(n.parameters(), lr=lr, betas=self.betas, fused=True) for n, lr in rates]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        real, _ = batch
        if batch_idx % self.trainer.log_every_n_steps == 0:
            self.norms_due = {"generator", "discriminator"}
        generator_optimizer, discriminator_optimizer = self.optimizers()
        fake = self.generator(self.generator.draw_latents(len(real)))

        real_score, fake_score = self.scores(torch.cat([real, fake.detach()])).split([len(real), len(fake)])
        loss = self.loss.discriminator(real_score, fake_score)
        penalty = self.penalty_now(real)
        self.step(discriminator_optimizer, self.discriminator, loss + penalty, counts=False)
        self.record(d_loss=loss, score_real=real_score.mean(), score_fake=fake_score.mean())

        if int(self.discriminator_step) % self.discriminator_steps == 0:  # counted across epochs
            self.discriminator.requires_grad_(False)  # its weights need no gradient here
            loss = self.loss.generator(self.scores(fake), self.reals_for_generator(real))
            self.step(generator_optimizer, self.generator, loss, counts=True)
            self.discriminator.requires_grad_(True)
            self.ema.update_parameters(self.generator)
            self.record(g_loss=loss)

    def scores(self, images: Tensor) -> Tensor:
        """Scores of images, in float32 whatever the precision of the networks."""
        return self.discriminator(images).float()

    @torch.no_grad()
    def reals_for_generator(self, real: Tensor) -> Tensor | None:
        """Scores of reals where the generator's loss needs them: no gradient goes through them, so they take
        a pass of their own instead of half of the backward one."""
        return self.scores(real) if self.loss.generator_sees_reals else None

    def penalty_now(self, real: Tensor) -> Tensor | float:
        """The penalty if this discriminator step is due for one, else 0."""
        step = int(self.discriminator_step)
        self.discriminator_step += 1
        if not self.penalty.due(step):
            return 0.0
        value = self.penalty(self.discriminator, real)
        self.record(penalty=value / self.penalty.every)
        return value

    def step(self, optimizer: Any, network: torch.nn.Module, loss: Tensor, counts: bool) -> None:
        """Backward and one optimiser step. Lightning counts steps of its own wrapper as ``global_step``; the
        discriminator's go through the strategy directly, so that only the generator's are counted."""
        raw = optimizer.optimizer
        raw.zero_grad()
        self.manual_backward(loss)
        role = "generator" if network is self.generator else "discriminator"
        if role in self.norms_due:  # the next step of either, which need not be in the same batch
            self.norms_due.discard(role)
            self.record(**{f"gradient_norm_{role}": _gradient_norm(network)})
        if counts:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(raw, closure=lambda: None, model=self)

    def record(self, **values: Tensor) -> None:
        """Keeps numbers of this step for the callbacks, detached and on the device: no waiting for them."""
        self.records.update({name: value.detach() for name, value in values.items()})

    @torch.inference_mode()
    def sample(self, latents: Tensor) -> Tensor:
        """Images in [-1, 1] of the averaged generator, which no training step disturbs."""
        return self.ema.module.eval()(latents)


def _gradient_norm(network: torch.nn.Module) -> Tensor:
    norms = torch._foreach_norm([p.grad for p in network.parameters() if p.grad is not None])
    return torch.stack(norms).norm()
