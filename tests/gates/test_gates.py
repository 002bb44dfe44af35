import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.gates import Gates
from secateur.structure import Decision, Family, Layer, Live, Member, Structure, trace
from tests.structures import Built, convnet, mlp, residual

BUILDERS = [mlp, convnet, residual]


def everything_on(structure: Structure) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.ones(structure.num_units, dtype=torch.bool),
        torch.ones(structure.num_layers, dtype=torch.bool),
    )


def loss_with_gates(built: Built, units_U: torch.Tensor, layers_L: torch.Tensor) -> torch.Tensor:
    """The loss as a differentiable function of the gates: the definition, written out."""
    model, structure, example = built
    weights = dict(model.named_parameters())
    effective = dict(weights)
    for number, family in enumerate(structure.families):
        start, stop = structure.offsets[number], structure.offsets[number + 1]
        for member in family.members:
            if member.consumes:
                shape = [1] * weights[member.tensor].ndim
                shape[member.axis] = -1
                gate = units_U[start:stop].repeat_interleave(member.index.shape[1]).view(shape)
                effective[member.tensor] = effective[member.tensor] * gate
    for number, layer in enumerate(structure.layers):
        for name in layer.closing:
            effective[name] = effective[name] * layers_L[number]
    output = torch.func.functional_call(model, effective, (example,))
    target = torch.arange(len(output)) % 3
    return nn.functional.cross_entropy(output, target)


def autograd_gates(built: Built, units_on: torch.Tensor, layers_on: torch.Tensor):
    units = units_on.double().requires_grad_()
    layers = layers_on.double().requires_grad_()
    loss = loss_with_gates(built, units, layers)
    return torch.autograd.grad(loss, (units, layers), allow_unused=True, materialize_grads=True)


def double(build) -> Built:
    model, structure, example = build()
    return Built(model.double(), structure, example.double())


def random_draw(structure: Structure, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(structure.num_units, generator=generator) > 0.4,
        torch.rand(structure.num_layers, generator=generator) > 0.4,
    )


def run(built: Built) -> None:
    output = built.model(built.example)
    nn.functional.cross_entropy(output, torch.arange(len(output)) % 3).backward()


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("seed", range(4))
def test_gradients_equal_autograd_through_gates_at_zero_and_at_one(build, seed):
    built = double(build)
    draw = random_draw(built.structure, seed)
    expected = autograd_gates(built, *draw)
    gates = Gates(built.model, built.structure, built.structure.everything())
    gates.close_(*draw)
    run(built)
    assert_close(gates.gradients(), expected)
    gates.open_()
    assert_close(gates.gradients(), expected)


@pytest.mark.parametrize("build", BUILDERS)
def test_gradients_without_a_draw_equal_autograd(build):
    built = double(build)
    on = everything_on(built.structure)
    expected = autograd_gates(built, *on)
    run(built)
    gates = Gates(built.model, built.structure, built.structure.everything())
    assert_close(gates.gradients(), expected)


def test_hand_computed_gradient_of_one_neuron():
    built = mlp()
    gates = Gates(built.model, built.structure, built.structure.everything())
    weight = built.model[4].weight  # [3, 4]: column u consumes unit u of family "2"
    weight.grad = torch.zeros_like(weight)
    weight.data[:, 1] = torch.tensor([1.0, 2.0, 3.0])
    weight.grad[:, 1] = torch.tensor([10.0, 0.0, -1.0])
    units, layers = gates.gradients()
    assert units.tolist() == [0, 0, 0, 0, 0, 0, 7, 0, 0]  # 1*10 + 2*0 - 3*1
    assert layers.tolist() == []


def bits(value: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor: unlike values, they tell 0.0 from -0.0."""
    return value.reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("build", BUILDERS)
def test_opening_restores_every_bit(build):
    built = build()
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    gates = Gates(built.model, built.structure, built.structure.everything())
    gates.close_(*random_draw(built.structure, 0))
    assert gates.closed
    gates.close_(*random_draw(built.structure, 1))
    gates.open_()
    assert not gates.closed
    for name, value in built.model.state_dict().items():
        assert torch.equal(bits(value), bits(before[name])), name


def test_a_closed_unit_has_no_say_whatever_its_activation():
    built = convnet()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, layers = everything_on(built.structure)
    units[2] = False
    gates.close_(units, layers)
    before = built.model(built.example)
    with torch.no_grad():
        built.model.bn1.bias[2] += 100.0
    assert_close(built.model(built.example), before, rtol=0, atol=0)


def test_a_closed_layer_contributes_nothing():
    built = residual()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, layers = everything_on(built.structure)
    layers[1] = False
    gates.close_(units, layers)
    stream = torch.rand(2, 4, 6, 6)
    assert_close(built.model.block2(stream), stream, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_belongs_to_closed_structures_ends_with_a_zero_gradient(seed):
    built = residual()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, layers = random_draw(built.structure, seed)
    units[0], layers[0] = False, False
    gates.close_(units, layers)
    run(built)
    gates.open_()
    gates.zero_closed_gradients_()
    grads = {name: p.grad for name, p in built.model.named_parameters()}
    for number, family in enumerate(built.structure.families):
        off = ~units[built.structure.offsets[number] : built.structure.offsets[number + 1]]
        for member in family.members:
            if member.tensor in grads:
                slices = grads[member.tensor].index_select(member.axis, member.index[off].flatten())
                assert not slices.any(), member.tensor
    for layer, on in zip(built.structure.layers, layers.tolist(), strict=True):
        for name in layer.tensors & grads.keys():
            assert on or not grads[name].any(), name


def test_gradients_of_what_stayed_on_are_not_touched():
    built = residual()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, layers = everything_on(built.structure)
    units[1] = False
    gates.close_(units, layers)
    run(built)
    before = built.model.fc.weight.grad.clone()
    gates.zero_closed_gradients_()
    after = built.model.fc.weight.grad
    keep = [0, 2, 3]
    assert torch.equal(after[:, keep], before[:, keep])
    assert not after[:, 1].any()


def test_version_counters_stay_so_that_backward_runs_after_opening():
    built = mlp()
    gates = Gates(built.model, built.structure, built.structure.everything())
    versions = [p._version for p in built.model.parameters()]
    units, layers = everything_on(built.structure)
    gates.close_(~units, layers)
    loss = built.model(built.example).sum()
    gates.open_()
    loss.backward()
    assert [p._version for p in built.model.parameters()] == versions


def test_closing_for_a_moment_returns_to_the_present_draw():
    built = residual()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, layers = random_draw(built.structure, 0)
    gates.close_(units, layers)
    closed = {name: value.clone() for name, value in built.model.state_dict().items()}
    with gates.also_closed(~units, ~layers):
        assert not torch.equal(built.model.fc.weight, closed["fc.weight"])
    for name, value in built.model.state_dict().items():
        assert torch.equal(value, closed[name]), name
    run(built)
    gates.open_()
    gates.zero_closed_gradients_()
    assert not built.model.fc.weight.grad[:, ~units[:4]].any()
    assert built.model.fc.weight.grad[:, units[:4]].any()


def test_closing_for_a_moment_from_open_leaves_no_memory_of_it():
    built = residual()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, layers = everything_on(built.structure)
    with gates.also_closed(~units, layers):
        pass
    assert not gates.closed
    run(built)
    before = built.model.fc.weight.grad.clone()
    gates.zero_closed_gradients_()
    assert torch.equal(built.model.fc.weight.grad, before)


def test_restored_holds_the_weights_as_they_are_when_open():
    built = residual()
    before = built.model.fc.weight.detach().clone()
    gates = Gates(built.model, built.structure, built.structure.everything())
    assert gates.restored() == {}
    units, layers = everything_on(built.structure)
    gates.close_(~units, layers)
    assert torch.equal(gates.restored()["fc.weight"], before)
    assert not built.model.fc.weight.any()


def shrink_by_hand(built: Built) -> Live:
    """Take unit 1 of family ``0`` and unit 3 of family ``2`` out of the mlp."""
    model = built.model
    first, second = torch.tensor([0, 2, 3, 4]), torch.tensor([0, 1, 2])
    model[0].weight.data = model[0].weight.data[first]
    model[0].bias.data = model[0].bias.data[first]
    model[2].weight.data = model[2].weight.data[second][:, first]
    model[2].bias.data = model[2].bias.data[second]
    model[4].weight.data = model[4].weight.data[:, second]
    gone = Decision(units={0: torch.tensor([1]), 1: torch.tensor([3])})
    return built.structure.everything().without(gone)


def test_after_a_removal_gates_still_mean_the_traced_positions():
    whole, smaller = double(mlp), double(mlp)
    live = shrink_by_hand(smaller)
    units, layers = random_draw(whole.structure, 3)
    gone = ~torch.cat(list(live.units))
    expected, _ = autograd_gates(whole, units & ~gone, layers)
    gates = Gates(smaller.model, smaller.structure, live)
    gates.close_(units, layers)
    run(smaller)
    found, _ = gates.gradients()
    assert_close(found[~gone], expected[~gone])
    assert not found[gone].any()


def test_gates_of_a_removed_layer_do_not_exist():
    built = residual()
    live = built.structure.everything().without(Decision(layers=(0,)))
    built.model.block1 = nn.Identity()
    gates = Gates(built.model, built.structure, live)
    assert not any(name.startswith("block1") for name in gates.names)
    run(built)
    units, layers = gates.gradients()
    assert layers[0] == 0
    assert layers[1] != 0
    assert units[:4].all()


def overlapping() -> Built:
    """A branch without a norm: its last linear both consumes the inner units and closes it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(6, 4)
            self.down = nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.relu(self.up(x)))

    base = mlp().structure
    index = torch.arange(4).unsqueeze(1)
    members = tuple(
        Member(tensor=t, axis=a, index=index, consumes=c)
        for t, a, c in [("up.weight", 0, False), ("up.bias", 0, False), ("down.weight", 1, True)]
    )
    torch.manual_seed(0)
    model = Net().double()
    tensors = {
        name: type(base.tensors["0.weight"])(
            name=name, aliases=(name,), shape=tuple(value.shape), is_parameter=True
        )
        for name, value in model.state_dict().items()
    }
    layer = Layer(
        name="branch",
        closing=("down.weight", "down.bias"),
        tensors=frozenset(tensors),
        stubs=(),
    )
    structure = Structure(
        families=(Family(name="up", kind="neuron", num_units=4, members=members),),
        layers=(layer,),
        fixed=(),
        tensors=tensors,
        cost=base.cost,
        example=((), {}),
    )
    return Built(model, structure, torch.randn(2, 6, dtype=torch.float64))


@pytest.mark.parametrize("layer_on", [True, False])
def test_two_gates_on_one_parameter_each_see_the_other_as_drawn(layer_on):
    built = overlapping()
    units = torch.tensor([True, False, True, False])
    layers = torch.tensor([layer_on])
    expected = autograd_gates(built, units, layers)
    gates = Gates(built.model, built.structure, built.structure.everything())
    gates.close_(units, layers)
    run(built)
    gates.open_()
    assert_close(gates.gradients(), expected)


def two_families_on_one_axis(first: list[int], second: list[int]) -> Built:
    """Linear(5, 3) whose inputs belong to two families of two units each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3)).double()
    base = mlp().structure
    tensors = {
        name: type(base.tensors["0.weight"])(
            name=name, aliases=(name,), shape=tuple(value.shape), is_parameter=True
        )
        for name, value in model.state_dict().items()
    }
    families = tuple(
        Family(
            name=name,
            kind="channel",
            num_units=2,
            members=(
                Member(
                    tensor="0.weight",
                    axis=1,
                    index=torch.tensor(index).unsqueeze(1),
                    consumes=True,
                ),
            ),
        )
        for name, index in [("a", first), ("b", second)]
    )
    structure = Structure(
        families=families, layers=(), fixed=(), tensors=tensors, cost=base.cost, example=((), {})
    )
    return Built(model, structure, torch.randn(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("second", [[3, 4], [1, 2]])
def test_units_of_two_families_on_one_axis_close_their_own_positions(second):
    built = two_families_on_one_axis([0, 1], second)
    draw = torch.tensor([False, True, True, False]), torch.ones(0, dtype=torch.bool)
    expected = autograd_by_input(built, draw[0], [0, 1], second)
    gates = Gates(built.model, built.structure, built.structure.everything())
    gates.close_(*draw)
    zero = (built.model[0].weight == 0).all(dim=0)
    assert zero.nonzero().flatten().tolist() == [0, second[1]]
    run(built)
    assert_close(gates.gradients()[0], expected)


def autograd_by_input(built: Built, units_on, first, second) -> torch.Tensor:
    """Gates on the inputs instead of the weights: position by position the same product."""
    gate_U = units_on.double().requires_grad_()
    factors = [torch.ones((), dtype=torch.float64) for _ in range(5)]
    for unit, position in enumerate([*first, *second]):
        factors[position] = factors[position] * gate_U[unit]
    output = built.model(built.example * torch.stack(factors))
    loss = nn.functional.cross_entropy(output, torch.arange(2) % 3)
    return torch.autograd.grad(loss, gate_U)[0]


def test_a_step_without_a_draw_follows_one_with_a_draw_untouched():
    built = mlp()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, layers = everything_on(built.structure)
    gates.close_(~units, layers)
    run(built)
    gates.open_()
    gates.zero_closed_gradients_()
    built.model.zero_grad()
    run(built)
    before = built.model[4].weight.grad.clone()
    gates.zero_closed_gradients_()
    assert before.any()
    assert torch.equal(built.model[4].weight.grad, before)


def test_a_parameter_without_a_gradient_counts_nothing():
    built = mlp()
    gates = Gates(built.model, built.structure, built.structure.everything())
    units, _ = gates.gradients()
    assert not units.any()
    built.model[4].weight.grad = torch.ones_like(built.model[4].weight)
    units, _ = gates.gradients()
    assert not units[:5].any()
    assert units[5:].all()
    gates.zero_closed_gradients_()


class _Spectral(nn.Module):
    """Mixes the channels of a spectrum with complex weights."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(4, 2)
        self.weight = nn.Parameter(torch.randn(6, 4, dtype=torch.complex128))

    def forward(self, x):
        spectrum = torch.fft.fft(self.first(x), dim=1)
        return self.last(torch.fft.ifft(spectrum @ self.weight, dim=1).real)


def test_gradients_of_complex_weights_equal_finite_differences():
    model, x = _Spectral().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    structure = trace(model, x)
    gates = Gates(model, structure, structure.everything())
    model(x).square().sum().backward()
    found_U, _ = gates.gradients()
    assert len(found_U) == 10
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    step = 1e-5
    for unit in range(10):
        losses = []
        for sign in (1, -1):
            gate_U = torch.ones(10, dtype=torch.float64)
            gate_U[unit] += sign * step
            moved = zip(gates.parameters, gates.weights_at(gate_U), strict=True)
            weights = {names[id(parameter)]: weight for parameter, weight in moved}
            losses.append(torch.func.functional_call(model, weights, (x,)).square().sum())
        expected = (losses[0] - losses[1]) / (2 * step)
        assert_close(found_U[unit], expected.detach(), rtol=1e-6, atol=1e-6)
