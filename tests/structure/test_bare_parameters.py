"""Parameters used without a layer of PyTorch around them, and layers that are seldom used."""

import pytest
import torch
from torch import nn

from secateur import trace, verify
from tests.steps import assert_training_goes_on


def units(model, example, **options):
    return {f.name: f.num_units for f in trace(model, example, **options).families}


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(*s)) for s in ((5, 8), (8, 6), (6, 2)))

    def forward(self, x):
        x = torch.einsum("bi,ij->bj", x, self.a).relu()
        x = torch.einsum("jk,bj->bk", self.b, x).relu()
        return torch.einsum("bk,ko->bo", x, self.c)


def test_units_of_an_einsum_over_bare_parameters():
    assert units(Chain(), torch.zeros(3, 5)) == {"a": 8, "b": 6}
    assert trace(Chain(), torch.zeros(3, 5)).cost.macs.value() == 3 * (5 * 8 + 8 * 6 + 6 * 2)
    assert verify(Chain(), torch.randn(3, 5)).num_units == 7
    assert_training_goes_on(Chain(), torch.randn(3, 5).double())


class Heads(nn.Module):
    """Attention over parameters ``[inputs, heads, width]``; the axes are merged by `einsum`."""

    def __init__(self, names):
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(5, 4, 3)) for _ in range(3))
        self.o = nn.Parameter(torch.randn(4, 3, 2))
        self.names = names

    def forward(self, x):
        n, d = self.names
        q, k, v = (torch.einsum(f"btc,c{n}{d}->bt{n}{d}", x, w) for w in (self.q, self.k, self.v))
        scores = torch.einsum(f"bt{n}{d},bs{n}{d}->b{n}ts", q, k).softmax(-1)
        mixed = torch.einsum(f"b{n}ts,bs{n}{d}->bt{n}{d}", scores, v)
        return torch.einsum(f"bt{n}{d},{n}{d}o->bto", mixed, self.o)


@pytest.mark.parametrize("names", ["hd", "nk"])
def test_heads_of_bare_parameters_and_the_width_of_their_values_are_units(names):
    model, example = Heads(names), torch.randn(2, 6, 5)
    assert units(model, example) == {"q": 4, "v": 3}
    assert verify(model, example).num_units == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("bi,ih->bh", "bh,ho->bo"),
        ("...i,ih->...h", "...h,ho->...o"),
        ("hi,bi", "bh,ho"),
        ("zi, ih -> hz", "hz, ho -> zo"),
    ],
)
def test_units_follow_the_letters_of_an_einsum_down_to_the_last_one(first, second):
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            shape = (6, 5) if first.startswith("hi") else (5, 6)
            self.a, self.b = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(6, 2))

        def forward(self, x):
            pair = (self.a, x) if first.startswith("hi") else (x, self.a)
            hidden = torch.einsum(first, *pair)
            if first == "hi,bi":  # what comes once is sorted: b before h
                assert hidden.shape[0] == len(x)
            return torch.einsum(second, hidden.relu(), self.b)

    model, example = Sums(), torch.randn(3, 5)
    assert units(model, example) == {"a": 6}
    assert trace(model, example).cost.macs.value() == 3 * (5 * 6 + 6 * 2)
    assert verify(model, example, fraction=0.9).num_units == 5


def test_letters_that_one_tensor_alone_has_are_summed_and_cost_nothing():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Parameter(torch.randn(6, 4, 2))

        def forward(self, x):
            return torch.einsum("bh,hko->bo", self.a(x), self.b)

    model, example = Sums(), torch.randn(3, 5)
    assert units(model, example) == {"a": 6}
    assert trace(model, example).cost.macs.value() == 3 * (5 * 6 + 6 * 2)
    assert verify(model, example).num_units == 3


def test_an_einsum_without_a_sum_couples_its_tensors():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.c(torch.einsum("bh,bh->bh", self.a(x), self.b(x).sigmoid()))

    model, example = Gated(), torch.randn(3, 5)
    assert units(model, example) == {"a": 6}
    assert verify(model, example, fraction=0.9).num_units == 5


def test_an_einsum_of_three_tensors_is_followed_product_by_product():
    class Chained(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(6, 2))

        def forward(self, x):
            return torch.einsum("bi,ih,ho->bo", x, self.a, self.b)

    model, example = Chained(), torch.randn(3, 5)
    assert units(model, example) == {"a": 6}
    assert verify(model, example).num_units == 3


class Queries(nn.Module):
    """Learned queries, a parameter, read through a projection, another one."""

    def __init__(self):
        super().__init__()
        self.queries, self.first = nn.Parameter(torch.randn(3, 6)), nn.Linear(5, 4)
        self.project, self.last = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        keys = self.first(x)
        scores = (self.project(self.queries) @ keys.transpose(1, 2)).softmax(-1)
        return self.last(scores @ keys)


def test_positions_of_learned_queries_are_units():
    assert units(Queries(), torch.zeros(2, 7, 5)) == {"queries": 6}
    assert verify(Queries(), torch.randn(2, 7, 5)).num_units == 3


class Pair(nn.Module):
    def __init__(self, *, same=False, bias=True):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(5, 6 if same else 7)
        self.pair = nn.Bilinear(6, 6 if same else 7, 4, bias=bias)
        self.last = nn.Linear(4, 2)
        self.same = same

    def forward(self, x):
        a = self.a(x).relu()
        return self.last(self.pair(a, a if self.same else self.b(x)).relu())


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"same": True}])
def test_all_three_axes_of_a_bilinear_layer_lose_units(shape, settings):
    model, example = Pair(**settings), torch.randn(shape)
    expected = {"a": 6, "pair": 4} if model.same else {"a": 6, "b": 7, "pair": 4}
    assert units(model, example) == expected
    verify(model, example)


def test_macs_of_a_bilinear_layer():
    macs = trace(Pair(), torch.zeros(3, 5)).cost.macs.value()
    assert macs == 3 * (5 * 6 + 5 * 7 + (4 * 6 * 7 + 4 * 7) + 4 * 2)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_columns_of_an_embedding_bag_are_units(mode):
    model = nn.Sequential(nn.EmbeddingBag(9, 8, mode=mode), nn.Linear(8, 2))
    example = torch.randint(0, 9, (3, 4))
    assert units(model, example) == {"0": 8}
    assert verify(model, example).num_units == 4
    assert_training_goes_on(model, example)


def test_embeddings_of_limited_length_are_fixed_and_say_so():
    model = nn.Sequential(nn.Embedding(9, 8, max_norm=1.0), nn.Linear(8, 2))
    structure = trace(model, torch.randint(0, 9, (3, 4)))
    assert structure.families == ()
    assert "enters the norm" in next(f.reason.message for f in structure.fixed)


def test_an_embedding_tied_to_the_output_gives_up_its_width():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
            self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 8)
            self.out.weight = self.embed.weight

        def forward(self, x):
            x = self.embed(x)
            return self.out(x + self.b(self.a(x).relu()))

    example = torch.randint(0, 9, (3, 4))
    assert sorted(units(Tied(), example).values()) == [6, 8]
    assert verify(Tied(), example).num_layers == 1


def test_buffers_shrink_with_the_channels_they_hold():
    class Filtered(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
            self.register_buffer("mean", torch.randn(8))
            self.register_buffer("mask", (torch.arange(8) % 3 > 0).float())
            self.register_buffer("blur", torch.rand(8, 1, 3, 3))

        def forward(self, x):
            x = (self.first(x) - self.mean[None, :, None, None]) * self.mask.view(1, -1, 1, 1)
            return self.last(nn.functional.conv2d(x, self.blur, groups=x.shape[1]))

    model, example = Filtered(), torch.randn(2, 3, 8, 8)
    assert units(model, example) == {"first": 8}
    assert verify(model, example).num_units == 4
