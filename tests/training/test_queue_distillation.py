"""The student of a queue of few levels: what it is told to predict, and its training by the real command."""

from dataclasses import replace

import pytest
import torch
from helpers import tiny_config, with_golden_weights

from lvdm.diffusion.conditioning import Conditioning
from lvdm.diffusion.schedule import CLEAN, NoiseSchedule
from lvdm.models.loading import instantiate_from_config
from lvdm.training.optimization import Optimization
from lvdm.training.queue_distillation import QueueDistillationTraining, QueueObjective, with_substeps

OBJECTIVE = QueueObjective(timesteps=(999, 600, 300, 100), width=2, substeps=3, guidance=2.5)
LEVELS = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3], [2] * 8])


@pytest.fixture
def training():
    model = with_golden_weights(instantiate_from_config(tiny_config("t2v")["model"]), "")
    return QueueDistillationTraining(model.eval(), optimization=Optimization(steps=2), objective=OBJECTIVE)


def clips(training):
    torch.manual_seed(0)
    return torch.randn(2, training.model.channels, 8, 4, 6)


def test_substeps_end_where_the_levels_are():
    assert with_substeps(torch.tensor([100, 300, 600, 999]), 3).tolist() == [
        33, 67, 100, 167, 233, 300, 400, 500, 600, 733, 866, 999,
    ]  # fmt: skip


@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_one_step_to_the_target_ends_where_several_of_the_teacher_do(training, parameterization):
    """The target puts the student exactly where the teacher is after its substeps with guidance, at every level."""
    for name in ("student", "fine"):
        setattr(training, name, replace(getattr(training, name), parameterization=parameterization))
    x, fps = clips(training), torch.tensor([8, 8])
    context = training.model.encode_text(["one", "two"])
    empty = Conditioning.of_text(training.model, [(0, "")], fps=8).unconditional
    at, fine, unet = x, 3 * (LEVELS + 1) - 1, training.teacher[0]
    for _ in range(3):
        told = training.fine.timesteps[fine]
        captioned, plain = (unet(at, told, each.expand(2, -1, -1, -1), fps) for each in (context, empty[0][None]))
        at, _ = training.fine.step(at, plain + 2.5 * (captioned - plain), fine, fine - 1, None)
        fine = fine - 1
    assert (fine[0, :2] == CLEAN).all()
    target = training.target(x, LEVELS, context, fps)
    after, _ = training.student.step(x, target, LEVELS, LEVELS - 1, None)
    torch.testing.assert_close(after, at, atol=2e-5, rtol=1e-4)


def test_the_noise_and_clean_latents_between_two_levels_are_those_of_a_step():
    scales = torch.linspace(1, 0.7, 1000)
    schedule = NoiseSchedule.from_tables(
        torch.linspace(0.999, 0.01, 1000), torch.tensor([100, 500, 900]), eta=0.0, signal_scales=scales
    )
    level, lower = torch.tensor([[0, 1, 2, 2]]), torch.tensor([[CLEAN, 0, 1, 0]])
    x0, eps = torch.randn(2, 1, 3, 4, 2, 2)
    found = schedule.x0_and_eps_between(
        schedule.q_sample(x0, level, eps), level, schedule.q_sample(x0, lower, eps), lower
    )
    torch.testing.assert_close(found, (x0, eps), atol=1e-5, rtol=1e-4)


def test_levels_are_those_of_the_plan_or_one_for_a_clip(training):
    torch.manual_seed(0)
    level, constant = training.levels(200)
    assert (level[~constant] == LEVELS[0]).all()
    assert (level[constant] == level[constant][:, :1]).all()
    assert set(level[constant][:, 0].tolist()) == {0, 1, 2, 3}
    assert 25 < constant.sum() < 75


def test_only_the_students_unet_learns_and_the_teacher_stays(training):
    batch = {
        "latents": clips(training),
        "caption": ["one", "two"],
        "caption_before": ["one", "two"],
        "changed": torch.ones(2, 8, dtype=torch.bool),
        "fps": torch.tensor([8, 8]),
    }
    training.log = lambda *_, **__: None
    with torch.enable_grad():
        training.training_step(batch, 0).backward()
    learned = {name for name, weight in training.named_parameters() if weight.grad is not None}
    assert learned
    assert all(name.startswith("model.model.diffusion_model.") for name in learned)
    assert all(weight.grad is None for weight in training.teacher[0].parameters())
    assert not any("teacher" in name for name in training.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": (100, 200)}, r"queue.timesteps is \[100, 200\], expected numbers that fall"),
        ({"timesteps": (999, 2)}, "at least the 3 substeps"),
        ({"width": 0}, "queue.width is 0, expected at least 1"),
    ],
)
def test_a_queue_that_is_none_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        replace(OBJECTIVE, **change)
