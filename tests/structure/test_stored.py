"""Numbers that modules keep: heads, splits and configurations follow the units they count."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.structure import Decision
from secateur.surgery import cut_


class Attention(nn.Module):
    """Self-attention that keeps its number of heads and its inner width."""

    def __init__(self, dim=12, heads=4, head_dim=5):
        super().__init__()
        self.num_heads, self.head_dim, self.inner = heads, head_dim, heads * head_dim
        self.qkv = nn.Linear(dim, 3 * self.inner)
        self.proj = nn.Linear(self.inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, self.inner))


@dataclasses.dataclass
class Settings:
    hidden: int = 8
    groups: int = 3


class Configured(nn.Module):
    """Reads its width from a configuration that it shares with others."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.settings = settings
        self.up = nn.Linear(6, settings.hidden * settings.groups)
        self.down = nn.Linear(settings.hidden, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x).view(len(x), self.settings.hidden, self.settings.groups)
        return self.down(torch.relu(x).sum(-1))


class Split(nn.Module):
    """Splits one projection into parts of the sizes in a tuple."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.up = nn.Linear(6, sum(sizes))
        self.down = nn.Linear(sizes[0], 6)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).split(self.sizes, dim=-1)
        return self.down(gate.sigmoid() * value)


def test_heads_leave_and_the_numbers_follow_exactly():
    net, x = Attention(), torch.randn(2, 7, 12)
    secateur.verify(net, x)
    structure = secateur.trace(net, x)
    (family,) = structure.families
    assert (family.num_units, family.kind) == (4, "head")
    live, edit = cut_(
        net, structure, structure.everything(), Decision(units={0: torch.tensor([1])})
    )
    assert (net.num_heads, net.head_dim, net.inner) == (3, 5, 15)
    cut_(net, structure, live, Decision(units={0: torch.tensor([3])}))
    assert (net.num_heads, net.head_dim, net.inner) == (2, 5, 10)
    assert edit.attributes[""] == {"num_heads": 3, "inner": 15}
    assert net(x).shape == x.shape


def test_numbers_are_as_before_when_surgery_is_called_off():
    net, x = Attention(), torch.randn(2, 7, 12)
    structure = secateur.trace(net, x)
    net.proj.register_forward_pre_hook(lambda module, args: (args[0].flip(-1),))
    with pytest.raises(secateur.SecateurError):
        cut_(net, structure, structure.everything(), Decision(units={0: torch.tensor([0])}))
    assert (net.num_heads, net.inner, net.qkv.weight.shape[0]) == (4, 20, 60)


def test_a_shared_configuration_changes_for_one_module_only():
    settings = Settings()
    net = nn.Sequential(Configured(settings), Configured(settings))
    x = torch.randn(5, 6)
    secateur.verify(net, x)
    structure = secateur.trace(net, x)
    assert [family.num_units for family in structure.families] == [8, 6, 8]
    cut_(net, structure, structure.everything(), Decision(units={2: torch.tensor([0, 2, 4])}))
    assert (net[0].settings.hidden, net[1].settings.hidden, settings.hidden) == (8, 5, 8)
    assert type(net[1].settings) is Settings


@pytest.mark.parametrize("kind", [list, tuple])
def test_entries_of_a_sequence_follow_one_by_one(kind):
    net, x = Split(kind([5, 5])), torch.randn(3, 6)
    secateur.verify(net, x)
    structure = secateur.trace(net, x)
    cut_(net, structure, structure.everything(), Decision(units={0: torch.tensor([2])}))
    assert net.sizes == kind([4, 4])


def test_one_number_for_two_widths_that_differ_stays_and_fixes_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 4
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x).view(len(x), self.width, 2).flatten(1)
            b = self.b(x).view(len(x), self.width, 2).flatten(1)
            return self.c(torch.relu(a)) + self.c(b)

    net, x = Twice(), torch.randn(3, 6)
    structure = secateur.trace(net, x)
    # Both widths meet the same weight, so they are one family, and the number can follow.
    assert [family.num_units for family in structure.families] == [4]

    class Apart(Twice):
        def __init__(self):
            super().__init__()
            self.d = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x).view(len(x), self.width, 2).flatten(1)
            b = self.b(x).view(len(x), self.width, 2).flatten(1)
            return self.c(torch.relu(a)) + self.d(b)

    structure = secateur.trace(Apart(), x)
    assert structure.families == ()
    reasons = [str(fixed.reason) for fixed in structure.fixed]
    assert any("width of module 'the model'" in reason for reason in reasons), reasons


def test_a_number_that_is_also_a_value_fixes_its_units():
    class Scaled(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / math.sqrt(self.num_heads)

    structure = secateur.trace(Scaled(), torch.randn(2, 7, 12))
    assert structure.families == ()
    reasons = [fixed.reason.message for fixed in structure.fixed]
    assert any("computes with other numbers" in reason for reason in reasons), reasons


def test_a_number_worked_out_from_the_stream_fixes_its_units():
    class Derived(Attention):
        def forward(self, x: Tensor) -> Tensor:
            batch, tokens, dim = x.shape
            size = dim // self.num_heads
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, size).unbind(2)
            return self.proj((q * k * v).reshape(batch, tokens, dim))

    structure = secateur.trace(Derived(dim=20), torch.randn(2, 7, 20))
    assert structure.families == ()
    reasons = [fixed.reason.message for fixed in structure.fixed]
    assert any("num_heads" in reason for reason in reasons), reasons


def test_slices_at_kept_numbers_follow():
    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = 6
            self.up, self.down = nn.Linear(5, 12), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.up(x)
            return self.down(x[..., : self.hidden] * x[..., self.hidden :].sigmoid())

    net, x = Sliced(), torch.randn(3, 5)
    secateur.verify(net, x)
    structure = secateur.trace(net, x)
    cut_(net, structure, structure.everything(), Decision(units={0: torch.tensor([0, 5])}))
    assert net.hidden == 4


@pytest.mark.parametrize(
    ("build", "width", "slots"),
    [
        (Attention, 12, {"num_heads": 3, "inner": 15}),
        (lambda: Configured(Settings()), 6, {"settings.hidden": 7}),
        (lambda: Split([5, 5]), 6, {"sizes.0": 4, "sizes.1": 4}),
    ],
)
def test_a_save_brings_the_numbers_back(tmp_path, build, width, slots):
    net, x = build(), torch.randn(2, 7, width) if build is Attention else torch.randn(2, width)
    structure = secateur.trace(net, x)
    decision = Decision(units={0: torch.tensor([1])})
    _, edit = cut_(net, structure, structure.everything(), decision)
    assert edit.attributes[""] == slots
    secateur.save(net, tmp_path / "small")
    loaded = secateur.load(build, tmp_path / "small")
    torch.testing.assert_close(loaded(x), net(x))


def test_tracing_leaves_plain_numbers_behind():
    net = nn.Sequential(Attention(), Split((5, 5)))
    net[1].up = nn.Linear(12, 10)
    before = copy.deepcopy({name: vars(module) for name, module in net.named_children()})
    secateur.trace(net, torch.randn(2, 7, 12))
    assert type(net[0].num_heads) is int
    assert all(type(size) is int for size in net[1].sizes)
    assert vars(net[0]).keys() == before["0"].keys()


class Scripted(nn.Module):
    """Hands a number it keeps to a scripted function, which cuts a gate in two with it."""

    def __init__(self, gate):
        super().__init__()
        self.first, self.last, self.width, self.gate = nn.Linear(3, 8), nn.Linear(4, 2), 4, gate

    def forward(self, x):
        return self.last(self.gate(self.first(x), self.width))


def gate(x: torch.Tensor, width: int) -> torch.Tensor:
    return torch.tanh(x[:, :width]) * torch.sigmoid(x[:, width:])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_units_that_a_scripted_function_counts_are_fixed():
    x = torch.randn(2, 3)
    assert [family.num_units for family in secateur.trace(Scripted(gate), x).families] == [4]
    structure = secateur.trace(Scripted(torch.jit.script(gate)), x)
    assert not structure.families
    assert "would go wrong at another size" in str(structure.explain("last.weight"))


class Doubled(nn.Module):
    """Keeps one number for two widths, of which one is twice the other."""

    def __init__(self):
        super().__init__()
        self.width = 4
        self.one, self.two = nn.Linear(3, 4), nn.Linear(3, 8)
        self.last_one, self.last_two = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        one = self.one(x).view(-1, self.width)
        u, v = self.two(x).view(-1, 2 * self.width).chunk(2, dim=1)
        return self.last_one(one), self.last_two(u * v)


def test_units_that_a_number_counts_for_others_leave_one_family_at_a_time():
    model, x = Doubled(), torch.randn(2, 3)
    structure = secateur.trace(model, x)
    for number in range(len(structure.families)):
        smaller = copy.deepcopy(model)
        gone = Decision(units={number: torch.tensor([1])})
        cut_(smaller, structure, structure.everything(), gone)
        assert [y.shape for y in smaller(x)] == [(2, 2), (2, 2)]
    assert "would go wrong at another size" in str(structure.explain("two.weight"))
