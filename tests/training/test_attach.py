import re

import pytest
import torch
from torch import nn

import secateur.training
from secateur.errors import NothingRemovableError, UsageError
from secateur.methods import ComplexityAware
from secateur.training import attach
from tests.structures import convnet, residual


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def refused(message: str, error=UsageError):
    return pytest.raises(error, match="^" + re.escape(message))


def test_attach_traces_the_model_and_returns_a_session_in_which_everything_lives():
    model, _, example = convnet()
    session = attach(model, sgd(model), example, price=0.3, total_steps=100)
    assert [family.num_units for family in session.structure.families] == [4, 5]
    assert all(mask.all() for mask in session.live.units)
    assert session.macs_share == 1.0
    assert not session.settled


@pytest.mark.parametrize(
    "goals", [{}, {"price": 0.3, "target_macs": 0.5}, {"target_macs": 0.5, "target_params": 0.5}]
)
def test_anything_but_one_goal_is_refused(goals):
    model, _, example = convnet()
    with pytest.raises(UsageError, match=r"price.*target_macs.*target_params"):
        attach(model, sgd(model), example, total_steps=100, **goals)


@pytest.mark.parametrize("steps", [None, 0])
def test_missing_total_steps_are_refused(steps):
    model, _, example = convnet()
    with refused(
        f"total_steps={steps} does not say how long the training is. The search plans its warm-up "
        "and its end by it. Pass the number of optimizer steps, such as total_steps=epochs * "
        "len(loader)."
    ):
        attach(model, sgd(model), example, price=0.3, total_steps=steps)


def test_more_steps_an_epoch_than_in_all_are_refused():
    model, _, example = convnet()
    with refused("steps_per_epoch=101 must lie between 1 and total_steps=100."):
        attach(model, sgd(model), example, price=0.3, total_steps=100, steps_per_epoch=101)


def test_a_training_shorter_than_the_warm_up_is_refused():
    model, _, example = convnet()
    method = ComplexityAware(price=0.3, warmup=200)
    with refused("total_steps=100 with settle_at=0.7 settles at step 70, which is not after"):
        attach(model, sgd(model), example, method=method, total_steps=100)


def test_settings_beside_a_method_are_refused():
    model, _, example = convnet()
    with refused(
        "attach got method=ComplexityAware(...) and price, layer_share beside it. A method brings "
        "its own settings. Write ComplexityAware(price=...)."
    ):
        attach(
            model,
            sgd(model),
            example,
            method=ComplexityAware(price=0.1),
            price=0.3,
            layer_share=0.5,
            total_steps=100,
        )


def test_an_optimizer_of_another_model_is_refused():
    model, _, example = convnet()
    other = nn.Linear(2, 3)
    with refused("None of the 2 parameters of this SGD belongs to the ConvNet."):
        attach(model, sgd(other), example, price=0.3, total_steps=100)


def test_an_optimizer_with_parameters_the_model_does_not_have_is_refused():
    model, _, example = convnet()
    both = torch.optim.SGD([*model.parameters(), nn.Parameter(torch.zeros(7, 2))], lr=0.1)
    with refused(
        "The optimizer holds 1 parameters, of shapes (7, 2), that the ConvNet does not have."
    ):
        attach(model, both, example, price=0.3, total_steps=100)


def test_a_model_with_nothing_to_remove_is_refused_with_reasons():
    model = nn.Linear(4, 3)
    with refused("Nothing in this Linear can be removed:", NothingRemovableError) as caught:
        attach(model, sgd(model), torch.zeros(1, 4), price=0.3, total_steps=100)
    assert "\n- " in str(caught.value)


def test_frozen_weights_that_units_feed_into_are_refused():
    model, _, example = convnet()
    model.fc.requires_grad_(False)
    with refused("fc.weight is frozen: units feed into it"):
        attach(model, sgd(model), example, price=0.3, total_steps=100)


def test_weights_the_optimizer_leaves_out_are_refused():
    model, _, example = convnet()
    optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if n != "conv2.weight"])
    with refused("conv2.weight is left out: units feed into it"):
        attach(model, optimizer, example, price=0.3, total_steps=100)


def test_a_model_on_two_devices_is_refused():
    model, _, example = convnet()
    model.fc.to("meta")
    with refused("The model lies on 2 devices: conv1.weight on cpu and fc.weight on meta."):
        attach(model, sgd(model), example, price=0.3, total_steps=100)


def test_attaching_twice_is_refused_until_the_first_is_detached():
    model, _, example = residual()
    optimizer = sgd(model)
    first = attach(model, optimizer, example, price=0.3, total_steps=100)
    with refused("A search is already attached to this ResNet. Call `detach()` on the first one"):
        attach(model, optimizer, example, price=0.3, total_steps=100)
    first.detach()
    attach(model, optimizer, example, price=0.3, total_steps=100)


def test_a_refused_attach_leaves_no_hook():
    model, _, example = convnet()
    with pytest.raises(UsageError):
        attach(
            model,
            sgd(model),
            example,
            method=ComplexityAware(price=0.3, warmup=100),
            total_steps=100,
        )
    assert not model._forward_pre_hooks


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled])
def test_a_wrapped_model_is_known_by_its_own_names(wrap):
    model, _, example = convnet()
    session = attach(wrap(model), sgd(model), example, price=0.3, total_steps=100)
    assert [family.name for family in session.structure.families] == ["conv1", "conv2"]


def test_the_floor_shows_what_it_promises():
    assert secateur.training.__all__ == sorted(secateur.training.__all__)
    assert {"attach", "Session"} <= set(secateur.training.__all__)
