import copy
import re

import pytest
import torch
from torch import nn

from secateur.errors import UsageError
from secateur.masks import Masks, maskable

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "SGD nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "SGD maximize fused": lambda p: torch.optim.SGD(p, lr=0.1, maximize=True, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1, amsgrad=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=0.05, foreach=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.5),
    "Adadelta": torch.optim.Adadelta,
    "Adamax": torch.optim.Adamax,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
    "Adafactor": torch.optim.Adafactor,
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4),
    "LBFGS line search": lambda p: torch.optim.LBFGS(p, max_iter=4, line_search_fn="strong_wolfe"),
}
if hasattr(torch.optim, "Muon"):
    OPTIMIZERS["Muon"] = lambda p: torch.optim.Muon([q for q in p if q.ndim == 2], lr=0.05)


def small_net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def train_(net, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator)
        labels = torch.randint(3, (16,), generator=generator)

        def closure(inputs=inputs, labels=labels):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs), labels)
            loss.backward()
            return loss

        optimizer.step(closure)


def random_masks(masks, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(w.shape, generator=generator) < 0.5 for n, w in masks.weights.items()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_masked_weights_and_their_state_stay_exactly_zero(kind):
    net = small_net()
    optimizer = OPTIMIZERS[kind](list(net.parameters()))
    train_(net, optimizer, 3)  # momentum from the time before the mask
    masks = Masks(net, optimizer, ["0.weight", "2.weight", "4.weight"])
    kept = random_masks(masks)
    masks.set_(kept)
    before = {name: weight.clone() for name, weight in masks.weights.items()}
    for seed in range(3):
        train_(net, optimizer, 1, seed)
        for name, parameter in net.named_parameters():
            if name not in kept:
                continue
            gone = ~kept[name]
            assert bool((parameter[gone] == 0).all()), name
            assert bool((parameter.grad[gone] == 0).all()), name
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    assert bool((value[gone] == 0).all()), (name, key)
    assert all(bool((masks.weights[n] != before[n])[kept[n]].any()) for n in kept)


def test_an_optimizer_that_mixes_entries_would_break_a_mask_held_by_gradients_alone():
    """The update after each step is not decoration: Muon's moves entries without gradient."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    weight = nn.Parameter(torch.randn(6, 4))
    kept = torch.rand(6, 4) < 0.5
    with torch.no_grad():
        weight.mul_(kept)
    optimizer = torch.optim.Muon([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.randn(6, 4) * kept
    optimizer.step()
    assert bool((weight[~kept] != 0).any())


@pytest.mark.parametrize("kind", ["SGD", "Adam", "Rprop", "LBFGS"])
def test_with_nothing_masked_training_is_the_same_bit_for_bit(kind):
    plain = small_net()
    hooked = copy.deepcopy(plain)
    nets = []
    for net, with_masks in ((plain, False), (hooked, True)):
        optimizer = OPTIMIZERS[kind](list(net.parameters()))
        if with_masks:
            Masks(net, optimizer)
        train_(net, optimizer, 5)
        nets.append(net.state_dict())
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name])


def test_a_masked_network_trains_as_one_whose_weights_are_multiplied_in_the_forward():
    """The definition: loss(w * m). SGD with momentum and decay, in float64."""
    net = small_net().double()
    reference = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    masks = Masks(net, optimizer)
    kept = random_masks(masks)
    masks.set_(kept)
    weights = {name: value.detach().clone() for name, value in reference.named_parameters()}
    weights = {n: (v * kept[n] if n in kept else v).requires_grad_() for n, v in weights.items()}
    by_hand = torch.optim.SGD(weights.values(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        inputs, labels = torch.randn(9, 6).double(), torch.randint(3, (9,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
        by_hand.zero_grad()
        effective = {n: (v * kept[n] if n in kept else v) for n, v in weights.items()}
        output = torch.func.functional_call(reference, effective, (inputs,))
        nn.functional.cross_entropy(output, labels).backward()
        by_hand.step()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=1e-12, atol=1e-12)


def test_clipping_by_norm_does_not_count_masked_gradients():
    net = nn.Linear(2, 1, bias=False)
    masks = Masks(net, torch.optim.SGD(net.parameters(), lr=0.1))
    masks.set_({"weight": torch.tensor([[True, False]])})
    net(torch.tensor([[3.0, 4.0]])).sum().backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), 1e9)
    assert float(norm) == 3.0  # 5 with the masked one


def test_a_masked_gradient_that_overflowed_becomes_zero():
    net = nn.Linear(2, 1, bias=False)
    masks = Masks(net, torch.optim.SGD(net.parameters(), lr=0.1))
    masks.set_({"weight": torch.tensor([[True, False]])})
    net(torch.tensor([[1.0, float("inf")]])).sum().backward()
    assert net.weight.grad.tolist() == [[1.0, 0.0]]


def test_gradients_written_by_hand_are_masked_before_the_update():
    net = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
    masks = Masks(net, optimizer)
    masks.set_({"weight": torch.tensor([[True, False]])})
    net.weight.grad = torch.ones(1, 2)
    optimizer.step()
    assert optimizer.state[net.weight]["momentum_buffer"].tolist() == [[1.0, 0.0]]
    assert net.weight.grad.tolist() == [[1.0, 0.0]]


def test_masks_count_what_is_left():
    net = small_net()
    masks = Masks(net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert (masks.num_weights, masks.num_kept, masks.kept_share) == (103, 103, 1.0)
    empty = torch.zeros(5, 8, dtype=torch.bool)
    half = torch.arange(15).view(3, 5) % 3 == 0
    masks.set_({"2.weight": empty, "4.weight": half})
    assert masks.num_kept == 48 + 0 + 5
    assert masks.emptied == ("2.weight",)
    assert torch.equal(masks.kept["4.weight"], half)


def test_saved_masks_return_and_act_on_the_model_they_are_loaded_into():
    net = small_net()
    masks = Masks(net, torch.optim.SGD(net.parameters(), lr=0.1))
    masks.set_(random_masks(masks))
    state = masks.state_dict()
    assert {n: len(bits) for n, bits in state.items()} == {
        "0.weight": 6,
        "2.weight": 5,
        "4.weight": 2,
    }
    other = small_net()
    loaded = Masks(other, torch.optim.SGD(other.parameters(), lr=0.1))
    loaded.load_state_dict(state)
    for name, mask in masks.kept.items():
        assert torch.equal(loaded.kept[name], mask)
        assert torch.equal(loaded.weights[name] != 0, mask)


def test_after_detaching_masked_weights_train_again():
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    masks = Masks(net, optimizer)
    masks.set_({"4.weight": torch.zeros(3, 5, dtype=torch.bool)})
    masks.detach()
    train_(net, optimizer, 1)
    assert bool((net[4].weight != 0).any())


def test_copies_of_the_model_are_free_of_masks():
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    Masks(net, optimizer).set_({"4.weight": torch.zeros(3, 5, dtype=torch.bool)})
    twin = copy.deepcopy(net)
    train_(twin, torch.optim.SGD(twin.parameters(), lr=0.1), 1)
    assert bool((twin[4].weight != 0).any())


def test_a_weight_used_by_two_modules_has_one_mask():
    net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    net[1].weight = net[0].weight
    assert list(maskable(net)) == ["0.weight"]
    assert list(maskable(net, ["1.weight"])) == ["0.weight"]


def test_biases_norms_embeddings_and_positions_are_not_masked_unless_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 5, 4))
            self.embed = nn.Embedding(7, 4)
            self.conv = nn.Conv1d(4, 4, 3)
            self.attention = nn.MultiheadAttention(4, 2)
            self.norm = nn.LayerNorm(4)
            self.memory = nn.GRU(4, 3)
            self.head = nn.Linear(3, 2)

    net = Net()
    assert list(maskable(net)) == [
        "conv.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "memory.weight_ih_l0",
        "memory.weight_hh_l0",
        "head.weight",
    ]
    assert list(maskable(net, ["embed.weight"])) == ["embed.weight"]


def test_frozen_weights_may_be_masked_without_an_optimizer_holding_them():
    net = small_net()
    net[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    masks = Masks(net, optimizer)
    masks.set_({"0.weight": torch.zeros(8, 6, dtype=torch.bool)})
    assert not bool(net[0].weight.any())


def full(message):
    return f"^{re.escape(message)}$"


def test_wrong_names_masks_and_optimizers_are_refused():
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(
        UsageError,
        match=full(
            "'head' is not a floating-point parameter of this Sequential. Use qualified names as "
            "in `dict(model.named_parameters())`."
        ),
    ):
        Masks(net, optimizer, ["head"])
    with pytest.raises(
        UsageError,
        match=full(
            "Nothing in this ReLU can be masked: it has no linear, convolutional, attention or "
            "recurrent module. Name the parameters with names=[...]."
        ),
    ):
        Masks(nn.ReLU(), optimizer)
    with pytest.raises(
        UsageError,
        match=full(
            "The optimizer does not hold 2.weight, 4.weight, so a mask could not be held there. "
            "Make the optimizer from the same model, or say with names=[...] which of its "
            "parameters are masked."
        ),
    ):
        Masks(net, torch.optim.SGD(net[0].parameters(), lr=0.1))
    masks = Masks(net, optimizer)
    with pytest.raises(
        UsageError,
        match=full(
            "There is a mask for '0.bias', which is not one of the masked parameters 0.weight, "
            "2.weight, 4.weight. Use these names, or make Masks with names=[...]."
        ),
    ):
        masks.set_({"0.bias": torch.ones(8, dtype=torch.bool)})
    with pytest.raises(
        UsageError,
        match=full(
            "The mask of 0.weight is torch.float32 of shape [8, 6], and has to be torch.bool of "
            "shape [8, 6]: True where a weight is left."
        ),
    ):
        masks.set_({"0.weight": torch.ones(8, 6)})
    with pytest.raises(
        UsageError,
        match=full(
            "The saved masks and this model's differ in 4.weight. Make Masks with the model and "
            "the names that the saved ones were made with."
        ),
    ):
        masks.load_state_dict({n: b for n, b in masks.state_dict().items() if n != "4.weight"})
    net[0].weight.data = net[0].weight.data[:4]
    with pytest.raises(
        UsageError,
        match=full(
            "0.weight has the shape [4, 6], and its mask is for [8, 6]. Units were removed since "
            "the masks were made: detach these masks and make new ones."
        ),
    ):
        masks.apply_()
