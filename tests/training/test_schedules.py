"""Learning rates, compared with PyTorch's own schedulers."""

import pytest
import torch
from torch.optim import lr_scheduler

from eqgan.training.schedules import ConstantSchedule, CosineSchedule, OneCycleSchedule, StepSchedule

STEPS, EPOCHS, LR = 60, 6, 0.3
MULTISTEP = {"milestones": [20, 50], "gamma": 0.2}
ORACLES = {
    "constant": (ConstantSchedule(), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "one-cycle": (OneCycleSchedule(), lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=STEPS)),
    "peak": (OneCycleSchedule(0.1, 0.5, 0.01), None),
    "cosine": (CosineSchedule(), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
    "step": (StepSchedule((2, 5), 0.2), lambda o: lr_scheduler.MultiStepLR(o, **MULTISTEP)),
}


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)


def rates(scheduler, steps=STEPS):
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", [name for name, (_, oracle) in ORACLES.items() if oracle])
def test_against_torch(name):
    ours, oracle = ORACLES[name]
    assert rates(ours.scheduler(optimizer(), STEPS, EPOCHS)) == pytest.approx(rates(oracle(optimizer())))


@pytest.mark.parametrize("name", ORACLES)
def test_it_goes_on_from_its_state(name):
    schedule = ORACLES[name][0]
    whole = rates(schedule.scheduler(optimizer(), STEPS, EPOCHS))
    first = schedule.scheduler(optimizer(), STEPS, EPOCHS)
    begun = rates(first, 25)
    assert all(isinstance(v, int | float | list | bool | None) for v in first.state_dict().values())
    second = schedule.scheduler(optimizer(), STEPS, EPOCHS)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert begun + rates(second, 35) == whole


def test_warm_up():
    found = rates(CosineSchedule(0.5).scheduler(optimizer(), STEPS, EPOCHS))
    assert found[:30] == sorted(found[:30])
    assert found[30] == LR == max(found)
    assert found[30:] == sorted(found[30:], reverse=True)


@pytest.mark.parametrize(
    "made",
    [
        lambda: StepSchedule(()),
        lambda: StepSchedule((0,)),
        lambda: StepSchedule((1,), 0.0),
        lambda: CosineSchedule(1.0),
        lambda: OneCycleSchedule(0.0),
        lambda: OneCycleSchedule(0.3, 2.0),
    ],
)
def test_values_that_cannot_be(made):
    with pytest.raises(ValueError, match="schedule: expected"):
        made()
