"""Losses measured on the side, against the loss of a model whose weights were zeroed by hand."""

import copy
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.testing import assert_close

from secateur.gates import Gates
from tests.structures import Built, residual
from tests.training.scripted import (
    Scripted,
    all_but,
    assert_same,
    labels_of,
    start,
)

IMAGES = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(3))
LABELS = labels_of(IMAGES)


@dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


Pair = namedtuple("Pair", ["features", "logits"])


class Wrapped(nn.Module):
    """The residual net, returning its logits in some container."""

    def __init__(self, net: nn.Module, pack) -> None:
        super().__init__()
        self.net = net
        self.pack = pack

    def forward(self, images, labels=None):
        return self.pack(self.net(images), labels)


def as_tensor(logits, labels):
    return logits


CONTAINERS = {
    "tensor": (as_tensor, lambda out: out),
    "tuple": (lambda logits, _: (None, (logits, 3)), lambda out: out[1][0]),
    "namedtuple": (lambda logits, _: Pair(logits * 2, logits), lambda out: out.logits),
    "dict": (lambda logits, _: {"a": {"logits": logits}}, lambda out: out["a"]["logits"]),
    "dataclass": (lambda logits, _: Output(logits), lambda out: out.logits),
}


def wrapped(pack=as_tensor) -> Built:
    """The residual net below one more module; its structure keeps the inner names."""
    model, structure, example = residual()
    net = Wrapped(model, pack)

    def named_parameters(*args, **kwargs):
        return model.named_parameters(*args, **kwargs)

    net.named_parameters = named_parameters
    return Built(net, structure, example)


def run(built, user_loss, *, probe=None, draw=None, events=None):
    """One step in which ``user_loss`` does whatever a user does between forward and update."""
    probe = probe or all_but(built.structure, units=(1,), layers=(1,))
    method = Scripted(probes={0: probe}, draws=draw or {})
    on_event = None if events is None else events.append
    session, optimizer = start(built, method, on_event=on_event, total_steps=100_000)
    user_loss(built.model)
    optimizer.step()
    session.detach()
    return method.rises


def rise_by_hand(loss, *, probe=None, draw=None) -> float:
    """Zero weights in a copy, call it in training mode, compare losses."""
    built = residual()
    structure = built.structure
    draw = draw or all_but(structure)
    probe = probe or all_but(structure, units=(1,), layers=(1,))
    values = []
    for units, layers in [
        (draw.units_U, draw.layers_L),
        (draw.units_U & probe.units_U, draw.layers_L & probe.layers_L),
    ]:
        model = copy.deepcopy(built.model)
        Gates(model, structure, structure.everything()).close_(units, layers)
        torch.manual_seed(11)
        with torch.no_grad():
            values.append(float(loss(model(IMAGES))))
    return values[1] - values[0]


def cross_entropy(logits):
    return F.cross_entropy(logits, LABELS)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_rise_is_that_of_the_users_loss_in_every_container(container):
    pack, unpack = CONTAINERS[container]

    def step(model):
        cross_entropy(unpack(model(IMAGES))).backward()

    assert_close(run(wrapped(pack), step), [rise_by_hand(cross_entropy)], rtol=1e-5, atol=1e-6)


def test_a_loss_computed_inside_the_model_is_picked_from_its_output():
    built = wrapped(lambda logits, labels: Output(logits, F.cross_entropy(logits, labels)))

    def step(model):
        model(IMAGES, labels=LABELS).loss.backward()

    assert_close(run(built, step), [rise_by_hand(cross_entropy)], rtol=1e-5, atol=1e-6)


def test_an_output_of_transformers_is_walked_through():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    built = wrapped(
        lambda logits, labels: outputs.ImageClassifierOutput(
            loss=F.cross_entropy(logits, labels), logits=logits
        )
    )

    def step(model):
        output = model(IMAGES, labels=LABELS)
        (output.loss + 0.1 * output["logits"].square().mean()).backward()

    expected = rise_by_hand(lambda logits: cross_entropy(logits) + 0.1 * logits.square().mean())
    assert_close(run(built, step), [expected], rtol=1e-5, atol=1e-6)


def test_the_probe_comes_on_top_of_the_draw():
    built = residual()
    draw = all_but(built.structure, units=(0, 8), layers=(0,))

    def step(model):
        cross_entropy(model(IMAGES)).backward()

    expected = rise_by_hand(cross_entropy, draw=draw)
    assert_close(run(built, step, draw=draw), [expected], rtol=1e-5, atol=1e-6)


def busy_loss(logits):
    """A loss with reshaping, masking in place, indexing, and several results of one call."""
    logits = logits.clone()
    logits[:, 0] -= 0.5
    top, _ = logits.max(dim=1)
    weights = torch.ones(len(logits))
    weights[2] = 3.0
    each = F.cross_entropy(logits.view(-1, 3), LABELS, reduction="none", label_smoothing=0.1)
    first, *_ = (each * weights).chunk(2)
    return (each * weights).mean() + 0.01 * top.square().sum() + first.sum() / len(logits)


def test_a_loss_of_many_calls_is_followed():
    def step(model):
        busy_loss(model(IMAGES)).backward()

    assert_close(run(residual(), step), [rise_by_hand(busy_loss)], rtol=1e-5, atol=1e-6)


def test_an_output_changed_in_place_is_followed():
    def loss(logits):
        logits.mul_(2.0)
        logits[:, 1] = 0.25
        return cross_entropy(logits)

    def step(model):
        loss(model(IMAGES)).backward()

    assert_close(run(residual(), step), [rise_by_hand(loss)], rtol=1e-5, atol=1e-6)


def test_a_loss_with_dropout_draws_the_same_numbers_again():
    def loss(logits):
        return F.cross_entropy(F.dropout(logits, 0.5), LABELS)

    def step(model):
        torch.manual_seed(11)
        loss(model(IMAGES)).backward()

    assert_close(run(residual(), step), [rise_by_hand(loss)], rtol=1e-5, atol=1e-6)


def test_metrics_on_the_way_are_kept_out_of_it():
    correct = torch.zeros(())
    seen = []

    def step(model):
        logits = model(IMAGES)
        correct.add_((logits.argmax(dim=1) == LABELS).sum())
        loss = cross_entropy(logits)
        seen.append(loss.item())
        loss.backward()

    events = []
    rises = run(residual(), step, events=events)
    assert_close(rises, [rise_by_hand(cross_entropy)], rtol=1e-5, atol=1e-6)
    assert correct <= 6
    assert len(seen) == 1
    assert not [event for event in events if event["event"] == "notice"]


def test_a_scaler_is_taken_out_and_parts_of_a_batch_add_up():
    def step(model):
        scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
        for part in (slice(0, 3), slice(3, 6)):
            loss = F.cross_entropy(model(IMAGES[part]), LABELS[part]) / 2
            scaler.scale(loss).backward()

    built = residual()
    expected = 0.0
    for part in (slice(0, 3), slice(3, 6)):
        on, off = copy.deepcopy(built.model), copy.deepcopy(built.model)
        probe = all_but(built.structure, units=(1,), layers=(1,))
        Gates(off, built.structure, built.structure.everything()).close_(
            probe.units_U, probe.layers_L
        )
        losses = [F.cross_entropy(m(IMAGES[part]), LABELS[part]).item() / 2 for m in (on, off)]
        expected += losses[1] - losses[0]
    assert_close(run(built, step), [expected], rtol=1e-4, atol=1e-6)


def test_several_forwards_before_one_backward_belong_to_one_loss():
    def loss_of(model):
        torch.manual_seed(11)
        return F.mse_loss(model(IMAGES[:3]), model(IMAGES[3:]).detach() + 1)

    def step(model):
        loss_of(model).backward()

    model, structure, example = residual()
    built = Built(Noisy(model), structure, example)
    on, off = (Noisy(copy.deepcopy(model)) for _ in range(2))
    probe = all_but(built.structure, units=(1,), layers=(1,))
    Gates(off, built.structure, built.structure.everything()).close_(probe.units_U, probe.layers_L)
    expected = loss_of(off).item() - loss_of(on).item()
    assert_close(run(built, step), [expected], rtol=1e-5, atol=1e-6)


def test_several_losses_of_one_forward_add_up():
    def step(model):
        logits = model(IMAGES)
        cross_entropy(logits).backward(retain_graph=True)
        logits.square().mean().backward()

    expected = rise_by_hand(lambda logits: cross_entropy(logits) + logits.square().mean())
    assert_close(run(residual(), step), [expected], rtol=1e-5, atol=1e-6)


def test_the_function_form_of_backward_is_heard():
    def step(model):
        logits = model(IMAGES)
        torch.autograd.backward([cross_entropy(logits), logits.square().mean()])

    expected = rise_by_hand(lambda logits: cross_entropy(logits) + logits.square().mean())
    assert_close(run(residual(), step), [expected], rtol=1e-5, atol=1e-6)


def test_autocast_of_the_forward_holds_in_the_extra_forward():
    def step(model):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(IMAGES)
        cross_entropy(logits.float()).backward()

    built = residual()
    probe = all_but(built.structure, units=(1,), layers=(1,))
    losses = []
    for off in (False, True):
        model = copy.deepcopy(built.model)
        if off:
            Gates(model, built.structure, built.structure.everything()).close_(
                probe.units_U, probe.layers_L
            )
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            losses.append(cross_entropy(model(IMAGES).float()).item())
    assert_close(run(built, step), [losses[1] - losses[0]], rtol=1e-5, atol=1e-6)


class Noisy(nn.Module):
    """A net with dropout, a counter in a buffer, and one replaced at every call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(6, 3))

    def named_parameters(self, *args, **kwargs):
        return self.net.named_parameters(*args, **kwargs)

    def forward(self, images):
        self.calls += 1
        logits = F.dropout(self.net(images), 0.5, self.training)
        self.last = logits.detach() * torch.rand(())
        return logits


def test_a_probe_leaves_buffers_generators_gradients_and_weights_as_they_were():
    results = []
    for probed in (False, True):
        model, structure, example = residual()
        built = Built(Noisy(model), structure, example)
        probe = all_but(structure, units=(0,), layers=(1,))
        method = Scripted(probes={0: probe} if probed else {})
        session, optimizer = start(built, method)
        torch.manual_seed(5)
        cross_entropy(built.model(IMAGES)).backward()
        optimizer.step()
        session.detach()
        assert len(method.rises) == probed
        gradients = {f"grad {name}": p.grad for name, p in model.named_parameters()}
        results.append({**built.model.state_dict(), **gradients, "rng": torch.get_rng_state()})
    assert results[0]["calls"] == 1
    assert_same(results[1], results[0])


def failing(step, built=None) -> str:
    """Run a step whose loss cannot be computed again; return the reason that was told."""
    events = []
    built = built or residual()
    assert run(built, step, events=events) == []
    (notice,) = [event for event in events if event["event"] == "notice"]
    return notice["message"]


def test_a_loss_made_of_plain_numbers_is_told_once():
    def step(model):
        value = model(IMAGES).detach().numpy().sum()
        torch.tensor(float(value), requires_grad=True).backward()

    assert "does not depend on what the model returned" in failing(step)


def test_a_loss_from_inside_the_model_is_told():
    def step(model):
        kept = []
        model.block1.register_forward_hook(lambda *call: kept.append(call[2]))
        logits = model(IMAGES)
        (cross_entropy(logits) + kept[0].square().mean()).backward()

    assert "not part of what the model returned" in failing(step)


def test_a_loss_that_writes_into_a_lasting_tensor_is_told():
    bank = torch.zeros(6, 3)

    def step(model):
        logits = model(IMAGES)
        bank.copy_(logits.detach())
        (cross_entropy(logits) + (logits * bank).mean()).backward()

    assert "outlives the step" in failing(step)


def test_backward_with_a_given_gradient_is_told():
    def step(model):
        logits = model(IMAGES)
        logits.backward(torch.ones_like(logits))

    assert "not a scalar" in failing(step)


def test_a_user_who_never_calls_backward_leaves_no_mode_behind():
    built = residual()
    method = Scripted(probes={0: all_but(built.structure, layers=(0,))})
    session, _ = start(built, method)
    built.model(IMAGES)
    assert _get_current_function_mode_stack()
    session.detach()
    assert not _get_current_function_mode_stack()


def test_contexts_of_the_user_find_their_modes_where_they_left_them():
    before = torch.empty(0).device

    def step(model):
        with torch.device("meta"):
            logits = model(IMAGES)
        assert torch.empty(0).device == before
        with torch.device("cpu"):
            loss = cross_entropy(logits)
        loss.backward()

    rises = run(residual(), step)
    assert_close(rises, [rise_by_hand(cross_entropy)], rtol=1e-5, atol=1e-6)
    assert torch.empty(0).device == before
    assert not _get_current_function_mode_stack()


def test_a_default_device_may_be_set_and_unset_around_a_recorded_step():
    def step(model):
        torch.set_default_device("cpu")
        logits = model(IMAGES)
        torch.set_default_device(None)
        loss = cross_entropy(logits)
        torch.set_default_device("cpu")
        loss.backward()
        torch.set_default_device(None)

    rises = run(residual(), step)
    assert_close(rises, [rise_by_hand(cross_entropy)], rtol=1e-5, atol=1e-6)
    assert not _get_current_function_mode_stack()


def test_steps_without_a_probe_have_no_mode():
    built = residual()
    session, optimizer = start(built, Scripted())
    loss = cross_entropy(built.model(IMAGES))
    assert not _get_current_function_mode_stack()
    loss.backward()
    optimizer.step()
    session.detach()


def test_after_a_failure_no_more_probes_are_tried():
    built = residual()
    probes = {step: all_but(built.structure, layers=(0,)) for step in range(3)}
    method = Scripted(probes=probes)
    session, optimizer = start(built, method)
    for _ in range(3):
        built.model(IMAGES).backward(torch.ones(6, 3))
        optimizer.step()
    assert [event["event"] for event in session.events].count("notice") == 1
    assert method.rises == []
