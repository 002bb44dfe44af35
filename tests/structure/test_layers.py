"""Which residual branches can go, what goes with them, and how."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur import verify
from secateur.structure import Stub, trace


class _Block(nn.Module):
    def __init__(self, functional: bool):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.relu = None if functional else nn.ReLU()

    def forward(self, x):
        act = self.relu or F.relu
        return act(x + self.bn2(self.conv2(act(self.bn1(self.conv1(x))))))


def _layers(model, *shape):
    return trace(model, torch.zeros(*shape)).layers


def test_a_block_becomes_the_modules_that_follow_its_addition():
    (layer,) = _layers(nn.Sequential(_Block(functional=False), nn.Conv2d(2, 1, 1)), 1, 2, 4, 4)
    assert layer.name == "0"
    assert set(layer.closing) == {"0.bn2.weight", "0.bn2.bias"}
    assert layer.stubs == (Stub(module="0", kind="shortcut", children=("relu",)),)
    assert "0.conv1.weight" in layer.tensors
    assert "0.bn2.running_mean" in layer.tensors


def test_a_relu_called_as_a_function_stays_too():
    (layer,) = _layers(nn.Sequential(_Block(functional=True), nn.Conv2d(2, 1, 1)), 1, 2, 4, 4)
    assert layer.stubs == (Stub(module="0", kind="shortcut", children=("@relu",)),)


class _Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm2, self.mlp = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


def test_two_branches_of_one_block_go_quiet_one_by_one():
    first, second = _layers(nn.Sequential(_Encoder(), nn.Linear(4, 2)), 1, 3, 4)
    assert first.stubs == (
        Stub(module="0.norm1", kind="identity"),
        Stub(module="0.attention", kind="zero", output=(0, 2)),
    )
    assert second.stubs == (
        Stub(module="0.norm2", kind="identity"),
        Stub(module="0.mlp", kind="zero"),
    )


class _Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch, self.shortcut = (
            nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 4)),
            nn.Linear(3, 4),
        )

    def forward(self, x):
        return self.branch(x) + self.shortcut(x)


def test_of_two_learned_operands_the_larger_is_the_branch_and_the_other_stays():
    (layer,) = _layers(nn.Sequential(_Projected(), nn.Linear(4, 2)), 1, 3)
    assert layer.stubs == (Stub(module="0", kind="shortcut", children=("shortcut",)),)
    assert not any(name.startswith("0.shortcut") for name in layer.tensors)


class _Shared(nn.Module):
    """Uses one branch twice, so that neither use can go alone."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, x):
        x = x + self.branch(x)
        return x + self.branch(x)


def test_a_branch_that_is_used_twice_stays():
    assert _layers(nn.Sequential(nn.Linear(3, 4), _Shared(), nn.Linear(4, 2)), 1, 3) == ()


class _Inline(nn.Module):
    """Reshapes around its modules by hand, and the block does something else, too."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        pairs = self.inner(x.reshape(-1, 2, 2))
        return torch.sin(x + self.outer(pairs).reshape(x.shape))


def test_what_a_branch_does_around_its_modules_may_go_on():
    model = nn.Sequential(nn.Linear(3, 4), _Inline(), nn.Linear(4, 2))
    (layer,) = _layers(model, 1, 3)
    assert layer.stubs == (
        Stub(module="1.inner", kind="identity"),
        Stub(module="1.outer", kind="zero"),
    )
    assert verify(model, torch.randn(2, 3)).num_layers == 1


class _Folding(nn.Module):
    """Folds the width that its first module makes, by hand."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 6), nn.Linear(3, 4)

    def forward(self, x):
        return torch.sin(x + self.outer(self.inner(x).reshape(-1, 2, 3).amax(1)))


def test_a_branch_that_is_not_made_of_modules_stays_and_says_why():
    model = nn.Sequential(nn.Linear(3, 4), _Folding(), nn.Linear(4, 2))
    structure = trace(model, torch.zeros(1, 3))
    assert structure.layers == ()
    (fixed,) = [f for f in structure.fixed if f.what.startswith("branch")]
    assert "not made of modules alone" in fixed.reason.message
    assert fixed.reason.source.startswith(__file__)


class _Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x, size):
        return self.mix(x), (size[0], size[1])


class _Gridded(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.grid, self.head = nn.Linear(3, 4), _Grid(), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        y, (height, width) = self.grid(x, (2, 3))
        return self.head((x + y).view(-1, height, width, 4))


def test_a_branch_whose_module_returns_numbers_too_stays():
    structure = trace(_Gridded(), torch.zeros(1, 6, 3))
    assert not structure.layers
    (branch,) = [fixed for fixed in structure.fixed if fixed.what.startswith("branch")]
    assert branch.reason.message == (
        "the branch stays because one of its modules returns values beside its tensor"
    )


class _Keyword(nn.Module):
    """A decoder layer whose attention takes keyword arguments only, and returns a tuple."""

    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(4), _Masked()

    def forward(self, hidden, mask=None):
        attended, _ = self.attention(hidden=self.norm(hidden), mask=mask, scale=0.5)
        return torch.sin(hidden + attended)


class _Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, hidden=None, mask=None, scale=1.0):
        return self.out(self.value(hidden) * mask * scale), None


class _Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(3, 4), _Keyword(), nn.Linear(4, 2)

    def forward(self, x, mask):
        return self.last(self.layer(hidden=self.first(x), mask=mask))


def test_modules_that_take_keywords_only_can_go():
    model, example = _Stack(), {"x": torch.randn(2, 5, 3), "mask": torch.ones(2, 5, 1)}
    (layer,) = trace(model, example).layers
    assert layer.stubs == (
        Stub(module="layer.norm", kind="identity"),
        Stub(module="layer.attention", kind="zero", output=(0, 2)),
    )
    assert verify(model, example).num_layers == 1


class _PostNorm(nn.Module):
    """Adds in another module than the branch begins in, as BERT does, and norms the sum."""

    def __init__(self):
        super().__init__()
        self.inner, self.output = _Masked(), _AddAndNorm()

    def forward(self, x):
        return self.output(self.inner(x, torch.ones(()))[0], x)


class _AddAndNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, hidden, stream):
        return self.norm(self.dense(hidden) + stream)


def test_a_branch_may_begin_in_another_module_than_it_ends_in():
    model = nn.Sequential(nn.Linear(3, 4), _PostNorm(), nn.Linear(4, 2))
    (layer,) = _layers(model, 1, 3)
    assert layer.stubs == (
        Stub(module="1.inner", kind="zero", output=(0, 2)),
        Stub(module="1.output.dense", kind="zero"),
    )
    assert verify(model, torch.randn(2, 3)).num_layers == 1


class _Cache:
    """Keeps tensors from one call for the next."""

    def __init__(self):
        self.entries = []


class _Caching(nn.Module):
    """Attention that keeps its keys."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x, cache=None):
        q, k = (f(x).unflatten(-1, (-1, 2)).transpose(1, 2) for f in (self.query, self.key))
        if cache is not None:
            cache.entries.append(k)
        heads = nn.functional.scaled_dot_product_attention(q, k, k)
        return self.out(heads.transpose(1, 2).flatten(2))


class _Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(3, 4), _Caching(), nn.Linear(4, 2)

    def forward(self, x, use_cache=True):
        cache = _Cache() if use_cache else None
        x = self.first(x)
        x = torch.sin(x + self.attention(x, cache=cache))
        return {"logits": self.last(x), "cache": cache}


def test_heads_whose_keys_are_cached_can_go_but_their_layer_stays_and_says_why():
    model, x = _Generator(), torch.randn(2, 5, 3)
    structure = trace(model, {"x": x})
    assert 3 in [family.num_units for family in structure.families]
    assert not structure.layers
    (fixed,) = [f for f in structure.fixed if f.what.startswith("branch")]
    assert "keeps tensors for the model's next call" in fixed.reason.message
    assert verify(model, {"x": x}).num_layers == 0
    assert verify(model, {"x": x, "use_cache": False}).num_layers == 1


class _Windows(nn.Module):
    """Splits tokens into windows between its modules, rolls them, scales, and merges them again."""

    def __init__(self, width=4):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 6), nn.GELU())
        self.mix.append(nn.Linear(6, width))
        self.gamma = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x):
        batch, tokens, width = x.shape
        y = self.norm(x).roll(1, dims=1).reshape(batch * tokens // 2, 2, width)
        y = self.mix(y).reshape(batch, tokens, width).roll(-1, dims=1)
        return torch.tanh(x + self.gamma * y)


class _NormedEnd(nn.Module):
    """Normalises what its branch returns, as Swin v2 does."""

    def __init__(self):
        super().__init__()
        self.mix, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x):
        return torch.tanh(x + self.norm(self.mix(x.flip(1)).flip(1)))


class _Narrowing(_Windows):
    """Its first module narrows what the block then reshapes, which a stand-in would not."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Linear(4, 2)
        self.mix = nn.Linear(2, 4)

    def forward(self, x):
        batch, tokens, _ = x.shape
        y = self.norm(x).reshape(batch * tokens, 2)
        return torch.tanh(x + self.gamma * self.mix(y).reshape(batch, tokens, 4))


class _Shifted(_NormedEnd):
    """Adds one behind its last module, so its end is not zero when the module returns zeros."""

    def forward(self, x):
        y = self.norm(self.mix(x.flip(1))) + torch.ones(4, dtype=x.dtype)
        return torch.tanh(x + y.flip(1))


@pytest.mark.parametrize(
    ("block", "stubs"),
    [
        (_Windows, (Stub(module="1.norm", kind="identity"), Stub(module="1.mix", kind="zero"))),
        (_NormedEnd, (Stub(module="1.mix", kind="identity"), Stub(module="1.norm", kind="zero"))),
    ],
)
def test_operations_between_modules_do_not_keep_a_branch(block, stubs):
    net, x = nn.Sequential(block(), nn.Linear(4, 2)), torch.randn(2, 6, 4)
    net.insert(0, nn.Linear(4, 4))
    (layer,) = trace(net, x).layers
    assert layer.stubs == stubs
    assert verify(net, x, fraction=0.9).num_layers == 1


@pytest.mark.parametrize("block", [_Narrowing, _Shifted])
def test_a_branch_stays_where_a_stand_in_would_not_do(block):
    assert _layers(nn.Sequential(block(), nn.Linear(4, 2)), 2, 6, 4) == ()


def test_a_branch_whose_modules_are_given_more_than_the_stream_can_go():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Linear(4, 4)

        def forward(self, x, gate):
            return self.value(x * gate)

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend, self.context = Gated(), nn.Linear(4, 4)

        def forward(self, x):
            context = self.context(x)
            return torch.tanh(x + self.attend(x, context)) * context

    net, x = nn.Sequential(Cross(), nn.Linear(4, 2)), torch.randn(2, 6, 4)
    (layer,) = trace(net, x).layers
    assert layer.stubs[-1] == Stub(module="0.attend", kind="zero")
    verify(net, x, fraction=0.9)


def test_a_linear_layer_over_transposed_tokens_closes_a_branch():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x):
            y = self.first(x).transpose(1, 2).relu().transpose(1, 2)
            return self.last(y)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = Transposed()

        def forward(self, x):
            return x + self.mlp(x)

    (layer,) = _layers(nn.Sequential(Block(), nn.Linear(4, 2)), 2, 6, 4)
    assert set(layer.closing) == {"0.mlp.last.weight", "0.mlp.last.bias"}


class _Peeking(nn.Module):
    """Looks at what its branch computes midway, at a width that equals the stream's by accident."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        hidden = self.inner(x).relu()
        return torch.tanh(x + self.outer(hidden)) + self.other(hidden)


def test_zeros_of_another_width_do_not_stand_in_though_the_numbers_agree():
    model, x = nn.Sequential(nn.Linear(3, 4), _Peeking(), nn.Linear(4, 2)), torch.randn(2, 3)
    structure = trace(model, x)
    assert not any("1.outer" in layer.name for layer in structure.layers)
    assert any("different places of the stream" in f.reason.message for f in structure.fixed)
    verify(model, x)


class _Weighing(nn.Module):
    """Asks its attention for weights that nobody looks at."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return torch.tanh(x + self.attention(x, x, x, need_weights=True)[0])


def test_a_result_that_nobody_looks_at_keeps_no_branch():
    model, x = nn.Sequential(nn.Linear(3, 4), _Weighing(), nn.Linear(4, 2)), torch.randn(2, 5, 3)
    (layer,) = trace(model, x).layers
    assert layer.stubs == (Stub(module="1.attention", kind="zero", output=(0, 2)),)
    verify(model, x)


def test_a_parameter_that_is_added_to_one_does_not_silence_a_branch():
    class OffsetScale(nn.Module):
        """Scales by one plus its weight, as Gemma's norms do: a weight of zero is no silence."""

        def __init__(self):
            super().__init__()
            self.linear, self.weight = nn.Linear(4, 4), nn.Parameter(torch.full((4,), 0.2))

        def forward(self, x):
            return self.linear(x) * (1.0 + self.weight)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = OffsetScale()

        def forward(self, x):
            return x + self.branch(x)

    net, x = nn.Sequential(Block(), nn.Linear(4, 2)), torch.randn(3, 4)
    (layer,) = trace(net, x).layers
    assert set(layer.closing) == {"0.branch.linear.weight", "0.branch.linear.bias"}
    verify(net, x)


class _Adds(nn.Module):
    """Adds a branch, and something of its own, to the stream."""

    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return torch.tanh(x) + self.branch(x)


def test_a_weight_of_given_length_closes_a_branch_with_its_length():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3, padding=1), dim=2)
    net = nn.Sequential(_Adds(conv), nn.Conv1d(4, 2, 1))
    (layer,) = _layers(net, 2, 4, 8)
    length = "0.branch.parametrizations.weight.original0"
    assert set(layer.closing) == {length, "0.branch.bias"}
    assert verify(net, torch.randn(2, 4, 8)).num_layers == 1


def test_a_weight_that_is_divided_by_its_own_norm_does_not_close_a_branch():
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv1d(4, 4, 3, padding=1))
    net = nn.Sequential(_Adds(conv), nn.Conv1d(4, 2, 1))
    assert _layers(net, 2, 4, 8) == ()


class _Standardised(nn.Conv2d):
    """A convolution whose filters are normalised over their inputs, and as long as a gain says."""

    def __init__(self, *args, gain=True, offset=False, **settings):
        super().__init__(*args, **settings)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1)) if gain else None
        self.offset = nn.Parameter(torch.ones(self.out_channels)) if offset else None

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        gain = None if self.gain is None else (self.gain * 0.3).view(-1)
        flat = F.batch_norm(flat, None, None, gain, self.offset, training=True, momentum=0.0)
        return F.conv2d(x, flat.reshape_as(self.weight), self.bias, padding=self.padding)


def test_a_standardised_weight_closes_a_branch_with_its_gain():
    net = nn.Sequential(_Adds(_Standardised(4, 4, 3, padding=1)), nn.Conv2d(4, 2, 1))
    (layer,) = _layers(net, 2, 4, 5, 5)
    assert set(layer.closing) == {"0.branch.gain", "0.branch.bias"}
    assert verify(net, torch.randn(2, 4, 5, 5)).num_layers == 1


def test_a_standardised_weight_with_an_offset_closes_with_both():
    net = nn.Sequential(_Adds(_Standardised(4, 4, 3, offset=True, padding=1)), nn.Conv2d(4, 2, 1))
    (layer,) = _layers(net, 2, 4, 5, 5)
    assert set(layer.closing) == {"0.branch.gain", "0.branch.offset", "0.branch.bias"}
    assert verify(net, torch.randn(2, 4, 5, 5)).num_layers == 1


@pytest.mark.parametrize("offset", [False, True])
def test_a_standardised_weight_without_a_gain_closes_nothing(offset):
    conv = _Standardised(4, 4, 3, gain=False, offset=offset, padding=1)
    assert _layers(nn.Sequential(_Adds(conv), nn.Conv2d(4, 2, 1)), 2, 4, 5, 5) == ()


class _Silencing(nn.Module):
    """Attends with a copy of its bias of which it overwrites a part, as Swin v2 does."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.out = nn.Linear(4, 4)

    def forward(self, x):
        bias = self.bias.clone()
        bias[1:3].zero_()
        return self.out(torch.relu(F.linear(x, self.weight, bias)))


def test_a_module_that_overwrites_a_part_of_its_own_tensor_can_go():
    net = nn.Sequential(nn.Linear(3, 4), _Adds(_Silencing()), nn.Linear(4, 2))
    (layer,) = _layers(net, 2, 3)
    assert layer.stubs == (Stub(module="1.branch", kind="zero"),)
    assert verify(net, torch.randn(2, 3)).num_layers == 1


class _WritesAhead(nn.Module):
    """Writes a module's result into a part of a tensor that two others read."""

    def __init__(self):
        super().__init__()
        self.made, self.branch, self.other = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        held = torch.tanh(x)
        held[:, :2] = self.made(x)[:, :2]
        return (x + self.branch(held)) * self.other(held)


def test_what_was_written_into_a_tensor_stays_for_its_other_readers():
    net = nn.Sequential(nn.Linear(3, 4), _WritesAhead(), nn.Linear(4, 2))
    (layer,) = _layers(net, 2, 3)
    assert layer.stubs == (Stub(module="1.branch", kind="zero"),)
    assert verify(net, torch.randn(2, 3)).num_layers == 1


class _Probabilities(nn.Module):
    """Returns what it weighs with beside its result, and has used it itself."""

    def __init__(self):
        super().__init__()
        self.key, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        weights = (x @ self.key(x).transpose(-1, -2)).softmax(-1)
        return self.out(weights @ x), weights


class _Weighs(nn.Module):
    def __init__(self, looks):
        super().__init__()
        self.attention, self.looks = _Probabilities(), looks

    def forward(self, x):
        mixed, weights = self.attention(x)
        x = torch.tanh(x) + mixed
        return x + weights.sum() if self.looks else x


@pytest.mark.parametrize("looks", [False, True])
def test_a_result_that_only_its_module_uses_does_not_count(looks):
    net = nn.Sequential(nn.Linear(3, 4), _Weighs(looks), nn.Linear(4, 2))
    layers = _layers(net, 2, 5, 3)
    stub = Stub(module="1.attention", kind="zero", output=(0, 2))
    assert [layer.stubs for layer in layers] == ([] if looks else [(stub,)])
    if not looks:
        assert verify(net, torch.randn(2, 5, 3)).num_layers == 1


class _Parallel(nn.Module):
    """One norm, two modules, and their sum."""

    def __init__(self):
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.norm(x)
        return torch.tanh(x) + (self.first(y) + self.second(y))


def test_a_branch_that_ends_in_a_sum_goes_with_all_its_parts():
    net = nn.Sequential(nn.Linear(3, 4), _Parallel(), nn.Linear(4, 2))
    layer = _layers(net, 2, 3)[-1]
    ends = {f"1.{name}.{kind}" for name in ("first", "second") for kind in ("weight", "bias")}
    assert set(layer.closing) == ends
    modules = ("1.norm", "1.first", "1.second")
    assert layer.stubs == tuple(Stub(module=name, kind="zero") for name in modules)
    assert verify(net, torch.randn(2, 3), fraction=0.9).num_layers == len(_layers(net, 2, 3))


def test_a_sum_with_a_number_is_not_silent():
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x) + 1.0

    assert _layers(nn.Sequential(_Adds(Offset()), nn.Linear(4, 2)), 2, 4) == ()


def test_a_joined_constant_is_not_silent():
    class Joins(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.rest = nn.Linear(4, 3), torch.ones(2, 1)

        def forward(self, x):
            return torch.cat([self.linear(x), self.rest], dim=1)

    assert _layers(nn.Sequential(_Adds(Joins()), nn.Linear(4, 2)), 2, 4) == ()


class _Sharing(nn.Module):
    """Two blocks that share a position encoding; the model holds it, too, if it `holds` it."""

    class Branch(nn.Module):
        def __init__(self, positions):
            super().__init__()
            self.positions, self.out = positions, nn.Linear(4, 4)

        def forward(self, x):
            return self.out(self.positions(x) * x)

    def __init__(self, *, holds):
        super().__init__()
        positions = nn.Linear(4, 4)
        if holds:
            self.positions = positions
        self.first = _Adds(self.Branch(positions))
        self.second = _Adds(self.Branch(positions))

    def forward(self, x):
        return self.second(self.first(x))


def test_branches_that_share_a_parameter_leave_it_where_the_model_holds_it():
    net = nn.Sequential(_Sharing(holds=True), nn.Linear(4, 2))
    layers = _layers(net, 2, 4)
    assert [layer.name for layer in layers] == ["0.first.branch", "0.second.branch"]
    assert all("0.positions.weight" not in layer.tensors for layer in layers)
    assert layers[0].closing == ("0.first.branch.out.bias", "0.first.branch.out.weight")
    assert verify(net, torch.randn(2, 4), fraction=0.9).num_layers == 2


def test_branches_that_alone_hold_a_shared_parameter_stay():
    structure = trace(nn.Sequential(_Sharing(holds=False), nn.Linear(4, 2)), torch.zeros(2, 4))
    assert structure.layers == ()
    reasons = {fixed.reason.message for fixed in structure.fixed}
    assert (
        "the branch stays because no module outside of the removable layers holds a parameter it "
        "shares with another"
    ) in reasons


def test_a_branch_that_ends_in_a_shared_layer_stays():
    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.end, self.inner = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 4) for _ in "ab")

        def forward(self, x):
            for inner in self.inner:
                x = torch.tanh(x) + self.end(inner(x))
            return x

    structure = trace(nn.Sequential(Ends(), nn.Linear(4, 2)), torch.zeros(2, 4))
    assert structure.layers == ()
    reasons = {fixed.reason.message for fixed in structure.fixed}
    assert "the branch stays because what silences it is used elsewhere, too" in reasons


class _OwnGelu(nn.Module):
    """Between two layers of other widths, arithmetic as Bloom writes its GELU."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 7), nn.Linear(7, 4)

    def forward(self, x, residual):
        y = self.up(x)
        y = y * 0.5 * (1.0 + torch.tanh(0.79788456 * y * (1 + 0.044715 * y * y)))
        return residual + self.down(y)


class _Given(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = _OwnGelu()

    def forward(self, x):
        return self.mlp(torch.tanh(x), x)


def test_arithmetic_between_the_modules_of_a_branch_runs_on_at_another_width():
    net = nn.Sequential(nn.Linear(3, 4), _Given(), nn.Linear(4, 2))
    (layer,) = _layers(net, 2, 3)
    assert layer.stubs == (
        Stub(module="1.mlp.up", kind="identity"),
        Stub(module="1.mlp.down", kind="zero"),
    )
    assert verify(net, torch.randn(2, 3)).num_layers == 1


def test_a_branch_that_multiplies_outside_of_its_modules_stays():
    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.value = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            scores = (self.query(x) @ x.transpose(-1, -2)).softmax(-1)
            return torch.tanh(x) + self.value(scores @ x)

    structure = trace(nn.Sequential(Mixes(), nn.Linear(4, 2)), torch.zeros(2, 5, 4))
    assert structure.layers == ()
    reasons = {fixed.reason.message for fixed in structure.fixed}
    expected = "the branch stays because it multiplies outside of its modules, which would go on"
    assert expected in reasons


def test_layers_that_leave_the_same_block_have_names_of_their_own():
    class Parts(nn.Module):
        """A large part and a small one, added: the large one may go, or both."""

        def __init__(self):
            super().__init__()
            self.large = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
            self.small = nn.Linear(6, 6)

        def forward(self, x):
            return self.large(x) + self.small(x)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.parts = nn.Linear(6, 6), Parts()

        def forward(self, x):
            x = x + self.first(x)
            return x + self.parts(x)

    structure = trace(nn.Sequential(nn.Linear(4, 6), Block(), nn.Linear(6, 2)), torch.zeros(2, 4))
    assert [layer.name for layer in structure.layers] == ["1.first", "1.parts", "1.parts#2"]


def test_a_chain_that_calls_a_module_twice_is_no_shortcut():
    class Block(nn.Module):
        """The larger operand is never zero; the smaller one comes from outside."""

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 6)
            self.act = nn.Sigmoid()

        def forward(self, x, shortcut):
            x = self.act(self.second(self.act(self.first(x))))
            return self.act(x + shortcut)

    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.block = nn.Linear(6, 6), Block()

        def forward(self, x):
            return self.block(x, self.project(x))

    net = nn.Sequential(nn.Linear(4, 6), Stage(), nn.Linear(6, 2))
    assert trace(net, torch.zeros(2, 4)).layers == ()
    assert verify(net, torch.randn(3, 4)).difference <= 1e-10
