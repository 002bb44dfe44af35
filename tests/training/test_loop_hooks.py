import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from tests.structures import convnet, mlp, residual
from tests.training.scripted import (
    Scripted,
    all_but,
    assert_same,
    labels_of,
    start,
    train_step,
    weights_of,
)


def batch(size: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def gradients_by_hand(built, draw, images):
    """Weights zeroed by hand in a copy, plain backward, sums written out."""
    model = copy.deepcopy(built.model).train()
    with torch.no_grad():
        for number, family in enumerate(built.structure.families):
            start_, stop = built.structure.offsets[number], built.structure.offsets[number + 1]
            for member in family.members:
                if member.consumes:
                    off = ~draw.units_U[start_:stop]
                    model.get_parameter(member.tensor).index_fill_(
                        member.axis, member.index[off].flatten(), 0
                    )
        for layer, on in zip(built.structure.layers, draw.layers_L.tolist(), strict=True):
            for name in layer.closing:
                model.get_parameter(name).mul_(float(on))
    F.cross_entropy(model(images), labels_of(images)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_users_gradients_are_those_of_the_gated_network():
    built = residual()
    draw = all_but(built.structure, units=(1, 5), layers=(1,))
    expected = gradients_by_hand(built, draw, batch())
    start(built, Scripted(draws=draw))
    F.cross_entropy(built.model(batch()), labels_of(batch())).backward()
    for name, parameter in built.model.named_parameters():
        assert_close(parameter.grad, expected[name])


def test_observe_gets_gate_gradients_and_the_batch_size():
    built = residual()
    draw = all_but(built.structure, units=(0,))
    weight = built.model.fc.weight.detach().clone()
    expected = gradients_by_hand(built, draw, batch())
    method = Scripted(draws=draw)
    _, optimizer = start(built, method)
    train_step(built.model, optimizer, batch())
    ((units, _, seen, size),) = method.observed
    assert seen is draw
    assert size == 6
    stream = sum(
        (w * expected[name]).sum(dim=(0, 2, 3))
        for name, w in [
            ("block1.conv1.weight", residual().model.block1.conv1.weight.detach()),
            ("block2.conv1.weight", residual().model.block2.conv1.weight.detach()),
        ]
    ) + (weight * expected["fc.weight"]).sum(dim=0)
    assert_close(units[:4], stream)


def test_gates_are_open_when_the_optimizer_updates_and_closed_slices_get_no_gradient():
    built = residual()
    before = weights_of(built.model)
    _, optimizer = start(
        built,
        Scripted(draws=all_but(built.structure, units=(2,), layers=(0,))),
        torch.optim.SGD(built.model.parameters(), lr=0.1),
    )
    train_step(built.model, optimizer, batch())
    after = built.model.state_dict()
    assert torch.equal(after["fc.weight"][:, 2], before["fc.weight"][:, 2])
    assert not torch.equal(after["fc.weight"][:, 1], before["fc.weight"][:, 1])
    assert torch.equal(after["block1.bn2.weight"], before["block1.bn2.weight"])
    assert torch.equal(after["block1.conv1.weight"], before["block1.conv1.weight"])


class Writes(TorchDispatchMode):
    """Counts operations that write into given tensors, also through ``.data``."""

    def __init__(self, tensors) -> None:
        super().__init__()
        self.storages = {tensor.untyped_storage()._cdata for tensor in tensors}
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                targets = value if isinstance(value, list | tuple) else [value]
                self.found += [
                    str(func)
                    for target in targets
                    if target.untyped_storage()._cdata in self.storages
                ]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampled", [False, True])
def test_weights_are_written_only_when_something_is_off(sampled):
    built = residual()
    draw = all_but(built.structure, units=(1,))
    _, optimizer = start(built, Scripted(draws=draw if sampled else {}))
    with Writes(built.model.parameters()) as writes:
        loss = F.cross_entropy(built.model(batch()), labels_of(batch()))
        loss.backward()
    assert bool(writes.found) == sampled
    optimizer.step()


def test_training_without_a_draw_is_plain_training_bit_for_bit():
    plain, watched = residual(), residual()
    ours = Scripted(
        probes={step: all_but(watched.structure, layers=(0,)) for step in range(1, 30, 2)}
    )
    session, optimizer = start(watched, ours)
    other = torch.optim.SGD(plain.model.parameters(), lr=0.1, momentum=0.9)
    for step in range(30):
        train_step(watched.model, optimizer, batch(seed=step))
        train_step(plain.model, other, batch(seed=step))
    assert len(ours.rises) == 15
    assert session.step == 30
    assert_same(weights_of(watched.model), weights_of(plain.model))


def test_one_draw_holds_for_every_forward_that_accumulates():
    built = residual()
    method = Scripted(draws=all_but(built.structure, units=(1,)))
    _, optimizer = start(built, method)
    for _ in range(3):
        for size in (2, 3):
            (F.cross_entropy(built.model(batch(size)), labels_of(batch(size))) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert method.num_draws == 3
    assert [size for *_, size in method.observed] == [5, 5, 5]


def test_a_closure_is_evaluated_under_gates_and_read_afterwards():
    plain, built = residual(), residual()
    draw = all_but(built.structure, units=(1,), layers=(1,))
    loop, closed = Scripted(draws=draw), Scripted(draws=draw)
    _, first = start(plain, loop)
    _, second = start(built, closed)

    def closure() -> torch.Tensor:
        second.zero_grad()
        loss = F.cross_entropy(built.model(batch()), labels_of(batch()))
        loss.backward()
        return loss

    for _ in range(3):
        loss = train_step(plain.model, first, batch())
        assert_close(second.step(closure), loss)
    assert_same(weights_of(built.model), weights_of(plain.model))
    assert closed.num_draws == 3
    for ours, theirs in zip(closed.observed, loop.observed, strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_a_closure_passed_by_name_is_wrapped_too():
    built = residual()
    method = Scripted(draws=all_but(built.structure, units=(1,)))
    _, optimizer = start(built, method)

    def closure() -> torch.Tensor:
        loss = built.model(batch()).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure=closure)
    assert len(method.observed) == 1


def test_an_optimizer_that_evaluates_often_draws_and_observes_once_a_step():
    built = mlp()
    method = Scripted(draws=all_but(built.structure, units=(1,)))
    optimizer = torch.optim.LBFGS(built.model.parameters(), lr=0.1, max_iter=4)
    start(built, method, optimizer)
    calls = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(built.model(built.example), labels_of(built.example))
        loss.backward()
        calls.append(loss)
        return loss

    before = built.model[2].weight[:, 1].detach().clone()
    optimizer.step(closure)
    assert len(calls) > 1
    assert method.num_draws == len(method.observed) == 1
    assert torch.equal(built.model[2].weight[:, 1], before)


def test_evaluation_between_forward_and_update_sees_the_deterministic_network():
    built = residual()
    draw = all_but(built.structure, units=(0, 1), layers=(0,))
    twin = copy.deepcopy(built.model)
    _, optimizer = start(built, Scripted(draws=draw))
    built.model(batch())  # closes the gates, and moves the statistics of the norms
    twin.load_state_dict(built.model.state_dict())
    built.model.eval()
    assert_close(built.model(batch()), twin.eval()(batch()), rtol=0, atol=0)
    built.model.train()
    with torch.no_grad():
        found = built.model(batch())
    assert_close(found, twin.train()(batch()), rtol=0, atol=0)
    optimizer.step()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_evaluation_between_forward_and_backward_does_not_disturb_the_gradients(mode):
    built = residual()
    draw = all_but(built.structure, units=(1,), layers=(1,))
    expected = gradients_by_hand(built, draw, batch())
    start(built, Scripted(draws=draw))
    loss = F.cross_entropy(built.model(batch()), labels_of(batch()))
    built.model.eval()
    with mode():
        built.model(batch())
    built.model.train()
    loss.backward()
    for name, parameter in built.model.named_parameters():
        assert_close(parameter.grad, expected[name])


def test_state_dict_while_closed_holds_restored_values_and_leaves_the_gates_closed():
    built = residual()
    before = weights_of(built.model)
    start(built, Scripted(draws=all_but(built.structure, units=(0, 1), layers=(0,))))
    loss = built.model(batch()).sum()
    state = built.model.state_dict()
    assert not built.model.fc.weight[:, 0].any()
    for name, _ in built.model.named_parameters():
        assert torch.equal(state[name], before[name]), name
    outer = nn.Sequential(built.model).state_dict()
    assert torch.equal(outer["0.fc.weight"], before["fc.weight"])
    loss.backward()


def test_loading_a_state_in_the_middle_of_a_step_is_not_undone():
    built = residual()
    _, optimizer = start(built, Scripted(draws=all_but(built.structure, units=(0,))))
    loaded = {name: value * 2 for name, value in weights_of(built.model).items()}
    built.model(batch())
    built.model.load_state_dict(loaded)
    optimizer.step()
    assert torch.equal(built.model.fc.weight, loaded["fc.weight"])


def test_copies_of_the_model_carry_no_session():
    built = residual()
    method = Scripted(draws=all_but(built.structure, units=(0,)))
    start(built, method)
    twin = copy.deepcopy(built.model)
    average = torch.optim.swa_utils.AveragedModel(built.model)
    stream = io.BytesIO()
    pickle.dump(built.model, stream)
    twin(batch())
    average(batch())
    pickle.loads(stream.getvalue())(batch())
    assert method.num_draws == 0
    assert twin.fc.weight[:, 0].any()


class Exploding(nn.Module):
    """Multiplies the loss by infinity when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels) * self.factor


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_changes_neither_gates_nor_weights(fused):
    plain, scaled = residual(), residual()
    draw = all_but(plain.structure, units=(1,), layers=(1,))
    ours, theirs = Scripted(draws=draw), Scripted(draws=draw)
    first = torch.optim.Adam(plain.model.parameters(), lr=0.01, fused=fused)
    second = torch.optim.Adam(scaled.model.parameters(), lr=0.01, fused=fused)
    start(plain, ours, first)
    start(scaled, theirs, second)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(3):
        train_step(plain.model, first, batch(seed=step))
        second.zero_grad()
        images = batch(seed=step)
        scaler.scale(F.cross_entropy(scaled.model(images), labels_of(images))).backward()
        scaler.step(second)
        scaler.update()
    for (units, layers, *_), (units_, layers_, *_) in zip(
        ours.observed, theirs.observed, strict=True
    ):
        assert_close(units, units_)
        assert_close(layers, layers_)
    for name, value in plain.model.state_dict().items():
        assert_close(scaled.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_skipped_for_overflow_restores_the_weights_and_is_not_observed(fused):
    built = residual()
    method = Scripted(draws=all_but(built.structure, units=(1,), layers=(1,)))
    optimizer = torch.optim.Adam(built.model.parameters(), lr=0.01, fused=fused)
    session, _ = start(built, method, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    loss = Exploding()
    before = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    for factor, size in [(float("inf"), 4), (1.0, 6)]:
        loss.factor = factor
        optimizer.zero_grad()
        scaler.scale(loss(built.model(batch(size)), labels_of(batch(size)))).backward()
        scaler.step(optimizer)
        scaler.update()
        if factor != 1.0:
            assert method.observed == []
            assert session.step == 0
            state = built.model.state_dict()
            assert all(torch.equal(state[name], value) for name, value in before.items())
            built.model.eval()
            built.model(batch())
            built.model.train()
    ((units, _, _, size),) = method.observed
    assert units.isfinite().all()
    assert size == 6
    assert session.step == 1
    assert built.model.fc.weight[:, 1].any()


def test_an_update_without_a_forward_of_the_model_warns_once_and_is_plain():
    built = residual()
    method = Scripted(draws=all_but(built.structure, units=(1,)))
    _, optimizer = start(built, method)
    built.model.fc(torch.randn(2, 4)).sum().backward()
    with pytest.warns(UserWarning, match=r"without a training forward of the attached model"):
        optimizer.step()
    optimizer.step()
    assert method.observed == []


def test_hooks_see_calls_through_data_parallel_wrappers():
    built = convnet()
    wrapper = nn.DataParallel(built.model)
    method = Scripted(probes={0: all_but(built.structure, units=(0,))})
    _, optimizer = start(built, method, wrapper=wrapper)
    train_step(wrapper, optimizer, batch())
    assert len(method.observed) == len(method.rises) == 1


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("find_unused", [False, True])
def test_a_distributed_model_is_gated_and_measured_like_the_plain_one(find_unused):
    plain, built = residual(), residual()
    draw = all_but(built.structure, units=(1,), layers=(1,))
    probes = {1: all_but(built.structure, layers=(0,))}
    ours, theirs = Scripted(draws=draw, probes=probes), Scripted(draws=draw, probes=probes)
    wrapper = DistributedDataParallel(built.model, find_unused_parameters=find_unused)
    _, first = start(plain, ours)
    _, second = start(built, theirs, wrapper=wrapper)
    for _ in range(3):
        train_step(plain.model, first, batch())
        train_step(wrapper, second, batch())
    assert len(theirs.rises) == 1
    assert theirs.rises == ours.rises
    assert_same(weights_of(built.model), weights_of(plain.model))


def test_a_compiled_model_is_gated_like_the_plain_one():
    plain, built = residual(), residual()
    draw = all_but(built.structure, units=(1,), layers=(1,))
    probes = {1: all_but(built.structure, layers=(0,))}
    ours, theirs = Scripted(draws=draw, probes=probes), Scripted(draws=draw, probes=probes)
    compiled = torch.compile(built.model, backend="eager")
    _, first = start(plain, ours)
    _, second = start(built, theirs, wrapper=compiled)
    for _ in range(3):
        train_step(plain.model, first, batch())
        train_step(compiled, second, batch())
    assert len(theirs.observed) == 3
    assert len(theirs.rises) == 1
    assert_close(theirs.rises, ours.rises)
    for ours_, theirs_ in zip(ours.observed, theirs.observed, strict=True):
        assert_close(theirs_[0], ours_[0])


def test_detaching_in_the_middle_of_a_step_restores_the_weights_and_leaves_no_hook():
    built = residual()
    before = built.model.fc.weight.detach().clone()
    session, optimizer = start(built, Scripted(draws=all_but(built.structure, units=(1,))))
    hooks = (
        built.model._forward_pre_hooks,
        built.model._forward_hooks,
        built.model._state_dict_hooks,
        built.model._load_state_dict_pre_hooks,
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
    )
    built.model(batch())
    assert all(hooks)
    session.detach()
    assert torch.equal(built.model.fc.weight, before)
    assert not any(hooks)


def test_after_settling_the_hooks_are_gone_at_the_next_forward():
    built = residual()
    method = Scripted(settle=2)
    session, optimizer = start(built, method)
    for _ in range(4):
        train_step(built.model, optimizer, batch())
    assert session.settled
    assert len(method.observed) == 2
    assert not built.model._forward_pre_hooks
    assert not built.model._forward_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_detaching_from_inside_an_event_is_allowed():
    built = residual()
    found = []
    method = Scripted()

    def on_event(event):
        found.append(event["event"])
        if event["event"] == "step":
            session.detach()

    session, optimizer = start(built, method, on_event=on_event)
    for _ in range(3):
        train_step(built.model, optimizer, batch())
    assert found == ["start", "step"]
    assert len(method.observed) == 1
