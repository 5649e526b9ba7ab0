"""What the processes of the tests do; importable, for they are started afresh."""

import hashlib
import os
import signal

import torch
from torch import nn

from eqgan.cli.classify import classify
from eqgan.cli.train import train_gan
from eqgan.training.base import TrainingRun
from eqgan.training.batch_norm import share_batch_norm
from eqgan.training.module import GAN
from eqgan.training.ranks import (
    everyones,
    gathered,
    own_randomness,
    own_share,
    rank,
    sum_gradients,
    world_size,
)


def digest(module: nn.Module) -> str:
    """Of every bit of its state."""
    found = hashlib.sha256()
    for tensor in module.state_dict().values():
        found.update(tensor.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def _with_digests(train, words):
    """The summary of a run, and the digest of the weights of every process at its end."""
    digests = []
    fit = TrainingRun.fit

    def fitted(self, resume=False):
        summary = fit(self, resume)
        digests.extend(everyones(digest(self.module)))
        return summary

    TrainingRun.fit = fitted
    return {**train(words), "digests": digests}


def gan_with_digests(words):
    return _with_digests(train_gan, words)


def classifier_with_digests(words):
    return _with_digests(classify, words)


def second_killed(words):
    """The second process dies in the middle of the third epoch."""
    play = GAN.play

    def dying(self, *args):
        if rank() == 1 and int(self.discriminator_step) == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        play(self, *args)

    GAN.play = dying
    return train_gan(words)


def second_out_of_memory(words):
    """The second process fails, with words of its own, where the first one waits for it."""
    play = GAN.play

    def failing(self, *args):
        if rank() == 1:
            raise torch.OutOfMemoryError("too much")
        play(self, *args)

    GAN.play = failing
    return train_gan(words)


def heard(words):
    """What the first process says goes into a file: these processes have the stderr of the one that forks."""
    if rank() == 0:
        descriptor = os.open(os.environ["HEARD"], os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 2)
    return train_gan(words)


def both_interrupted(words):
    """A terminal tells all of them."""
    play = GAN.play

    def interrupted(self, *args):
        if int(self.discriminator_step) == 7:
            signal.raise_signal(signal.SIGINT)
        play(self, *args)

    GAN.play = interrupted
    return heard(words)


def norms(words):
    """Gradients, and the gradients of a penalty, through a batch norm that sees the whole batch."""
    torch.manual_seed(0)
    found = {}
    for norm, shape in ((nn.BatchNorm1d(4), (8, 3)), (nn.BatchNorm1d(4, affine=False), (8, 3))):
        net = nn.Sequential(nn.Linear(3, 4), norm, nn.Tanh(), nn.Linear(4, 1)).double()
        share_batch_norm(net)
        x = torch.randn(*shape, dtype=torch.float64)
        scores = gathered(net(own_share(x)))[:, 0]
        loss = (scores.softmax(0) * torch.arange(8.0)).sum()
        points = own_share(x).clone().requires_grad_()
        (slopes,) = torch.autograd.grad(net(points).sum(), points, create_graph=True)
        (loss + slopes.square().sum(1).mean() / world_size()).backward()
        sum_gradients(net.parameters())
        name = str(norm.affine)
        found |= {f"{name} {n}": p.grad.flatten().tolist() for n, p in net.named_parameters()}
        found |= {f"{name} {n}": b.double().flatten().tolist() for n, b in net.named_buffers()}
        found[f"{name} scores"] = scores.tolist()
    return found


def numbers(words):
    """What the common stream gives before and after one of their own, and what they drew there."""
    torch.manual_seed(3)
    before = torch.rand(2).tolist()
    own = []
    for turn in range(2):
        with own_randomness(torch.device("cpu"), turn):
            own.append(torch.rand(2).tolist())
    return {"common": everyones([*before, *torch.rand(2).tolist()]), "own": everyones(own)}
