"""Recurrent layers: which slices are a hidden unit, what they cost, and that removal is exact."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from secateur import load, save, trace, verify
from secateur.errors import TraceError
from secateur.structure import Decision
from secateur.surgery import cut_
from tests.counting import counted_macs
from tests.steps import assert_training_goes_on

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, B, K, H = 4, 3, 5, 6


class Tagger(nn.Module):
    """A linear layer, a recurrent one, and readers of its output and of its last state."""

    def __init__(self, kind, *, initial=False, **settings):
        super().__init__()
        self.first = nn.Linear(K, K)
        self.rnn = getattr(nn, kind)(K, H, **settings)
        directions = 1 + self.rnn.bidirectional
        size = self.rnn.proj_size or H
        self.steps, self.last = nn.Linear(directions * size, 2), nn.Linear(size, 2)
        shape = (directions * self.rnn.num_layers, 1, H)
        self.initial = nn.Parameter(torch.randn(shape)) if initial else None

    def forward(self, x):
        x = self.first(x)
        state = None
        if self.initial is not None:
            state = self.initial.expand(-1, x.shape[0 if self.rnn.batch_first else 1], -1)
            state = state.contiguous()
            state = (state, state.tanh()) if isinstance(self.rnn, nn.LSTM) else state
        out, state = self.rnn(x, state)
        hidden = state[0] if isinstance(state, tuple) else state
        return {"steps": self.steps(out), "last": [self.last(hidden[-1])]}


SETTINGS = [
    {},
    {"num_layers": 2, "dropout": 0.5},
    {"bidirectional": True, "num_layers": 2, "batch_first": True},
    {"bias": False},
    {"initial": True, "bidirectional": True},
]
PROJECTED = [{"proj_size": 4}, {"proj_size": 4, "bidirectional": True, "num_layers": 2}]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_removing_hidden_units_is_exact(kind, settings):
    found = verify(Tagger(kind, **settings), torch.randn(B, T, K))
    assert found.num_families == 2


@pytest.mark.parametrize("settings", PROJECTED)
def test_hidden_and_projected_units_are_two_families(settings):
    found = verify(Tagger("LSTM", **settings), torch.randn(B, T, K))
    assert found.num_families == 3


@pytest.mark.parametrize("kind", GATES)
def test_a_hidden_unit_is_a_row_of_every_gate_and_the_columns_that_read_it(kind):
    structure = trace(nn.Sequential(Tagger(kind), _First()), torch.zeros(T, B, K))
    family = next(f for f in structure.families if f.name == "0.rnn")
    rows = [[gate * H + unit for gate in range(GATES[kind])] for unit in range(H)]
    column = [[unit] for unit in range(H)]
    slices = {(m.tensor.removeprefix("0."), m.axis): m for m in family.members}
    assert {place: member.index.tolist() for place, member in slices.items()} == {
        ("rnn.weight_ih_l0", 0): rows,
        ("rnn.weight_hh_l0", 0): rows,
        ("rnn.weight_hh_l0", 1): column,
        ("rnn.bias_ih_l0", 0): rows,
        ("rnn.bias_hh_l0", 0): rows,
        ("steps.weight", 1): column,
        ("last.weight", 1): column,
    }
    assert {place for place, member in slices.items() if member.consumes} == {
        ("rnn.weight_hh_l0", 1),
        ("steps.weight", 1),
        ("last.weight", 1),
    }


class _First(nn.Module):
    def forward(self, outputs):
        return outputs["steps"], outputs["last"][0]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(
    ("settings", "macs"),
    [
        # Of one time step, one example and one gate: input, then state, for each direction.
        ({}, K * H + H * H),
        ({"bidirectional": True}, 2 * (K * H + H * H)),
        ({"num_layers": 2}, K * H + H * H + 2 * H * H),
        ({"num_layers": 2, "bidirectional": True}, 2 * (K * H + H * H) + 2 * (2 * H * H + H * H)),
    ],
)
def test_macs_are_those_of_every_time_step_gate_and_direction(kind, settings, macs):
    model = Tagger(kind, **settings)
    directions = 1 + model.rnn.bidirectional
    around = T * B * (K * K + directions * H * 2) + B * H * 2
    assert trace(model, torch.zeros(T, B, K)).cost.macs.value() == (
        T * B * GATES[kind] * macs + around
    )


@pytest.mark.parametrize("settings", [*SETTINGS, *PROJECTED])
def test_macs_are_those_that_pytorch_counts_when_it_unrolls_the_layer(settings):
    # In float64, since oneDNN has a kernel of its own for float32 that the counter does not know.
    model, example = Tagger("LSTM", **settings).double(), torch.randn(T, B, K).double()
    assert trace(model, example).cost.macs.value() == counted_macs(model, example)


def test_macs_of_a_projection_are_counted_and_those_after_a_removal_follow():
    model = Tagger("LSTM", proj_size=4)

    def expected(units, projected):
        gates = 4 * (K * units + projected * units)
        return T * B * (K * K + gates + units * projected + projected * 2) + B * projected * 2

    structure = trace(model, torch.zeros(T, B, K))
    macs = structure.cost.macs
    assert macs.value() == expected(H, 4)
    names = [family.name for family in structure.families]
    units = {names.index("rnn"): torch.tensor([0, 4]), names.index("rnn#2"): torch.tensor([1])}
    live, _ = cut_(model, structure, structure.everything(), Decision(units=units))
    assert macs.value(live.counts, live.layers) == expected(4, 3)
    assert (model.rnn.hidden_size, model.rnn.proj_size) == (4, 3)
    assert [tuple(w.shape) for w in model.rnn._flat_weights] == [
        (16, K), (16, 3), (16,), (16,), (3, 4),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", GATES)
def test_a_long_sequence_is_one_operation(kind):
    structure = trace(Tagger(kind), torch.zeros(500, B, K))
    (places,) = structure.evidence.places
    assert sum(len(nodes) for nodes in places.values()) < 30


@pytest.mark.parametrize("kind", GATES)
def test_training_goes_on_through_a_removal(kind):
    assert_training_goes_on(
        Tagger(kind, num_layers=2, bidirectional=True), torch.randn(T, B, K).double()
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_smaller_recurrent_model_is_saved_and_loaded(tmp_path):
    example = torch.randn(T, B, K)

    def build():
        return Tagger("LSTM", proj_size=4, num_layers=2).eval()

    model = build()
    structure = trace(model, example)
    units = {number: torch.tensor([1]) for number in range(len(structure.families))}
    cut_(model, structure, structure.everything(), Decision(units=units))
    save(model, tmp_path / "saved")
    loaded = load(build, tmp_path / "saved")
    assert str(loaded.rnn) == "LSTM(4, 5, proj_size=3, num_layers=2)"
    assert torch.equal(loaded(example)["steps"], model(example)["steps"])


class Cells(nn.Module):
    """Two cells in a loop of its own; the state of the first step is made by the cells."""

    def __init__(self, kind):
        super().__init__()
        self.one, self.two = getattr(nn, kind)(K, H), getattr(nn, kind)(H, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        one = two = None
        outs = []
        for step in x.unbind(1):
            one = self.one(step, one)
            two = self.two(one[0] if isinstance(one, tuple) else one, two)
            outs.append(self.out(two[0] if isinstance(two, tuple) else two))
        return torch.stack(outs, dim=1)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells_in_a_loop_lose_hidden_units(kind):
    model = Cells(kind)
    gates = GATES[kind.removesuffix("Cell")]
    expected = B * T * (gates * (K * H + H * H + H * 4 + 4 * 4) + 4 * 2)
    assert trace(model, torch.zeros(B, T, K)).cost.macs.value() == expected
    assert verify(model, torch.randn(B, T, K)).num_families == 2


class Packed(nn.Module):
    def __init__(self, *, is_sorted=True):
        super().__init__()
        self.embed = nn.Linear(K, K)
        self.rnn = nn.GRU(K, H, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * H, 2)
        self.is_sorted = is_sorted

    def forward(self, x, lengths):
        packed = pack_padded_sequence(
            self.embed(x), lengths, batch_first=True, enforce_sorted=self.is_sorted
        )
        padded, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.out(padded)


@pytest.mark.parametrize(
    ("is_sorted", "lengths"),
    [(True, torch.tensor([4, 3, 1])), (False, torch.tensor([1, 4, 3])), (True, [4, 3, 1])],
)
def test_packed_sequences_of_given_lengths_are_followed(is_sorted, lengths):
    model, example = Packed(is_sorted=is_sorted), (torch.randn(B, T, K), lengths)
    steps = 4 + 3 + 1
    layers = 2 * 3 * (K * H + H * H) + 2 * 3 * (2 * H * H + H * H)
    macs = B * T * K * K + steps * layers + B * T * 2 * H * 2
    assert trace(model, example).cost.macs.value() == macs
    assert verify(model, example).num_families == 2


def test_sequences_packed_one_by_one_are_followed():
    class Lists(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(K, H), nn.Linear(H, 2)

        def forward(self, x):
            _, (hidden, cell) = self.rnn(pack_sequence([x[0, :3], x[1, :2]]))
            return self.out(hidden[-1] + cell[-1])

    assert verify(Lists(), torch.randn(2, T, K)).num_units == H // 2


def test_lengths_computed_from_data_are_refused_with_an_advice():
    class Computed(Packed):
        def forward(self, x, lengths):
            return super().forward(x, (x.sum((1, 2)) > 0).long() + 1)

    with pytest.raises(TraceError, match="lengths of a packed sequence are computed from data"):
        trace(Computed(), (torch.randn(B, T, K), torch.zeros(B)))


class Given(nn.Module):
    """Starts from a state that the caller gives, or from zeros of its own."""

    def __init__(self, size=None):
        super().__init__()
        self.rnn, self.out = nn.GRU(K, H, batch_first=True), nn.Linear(H, 2)
        self.size = size

    def forward(self, x, state=None):
        if state is None:
            state = torch.zeros(1, len(x), self.size or self.rnn.hidden_size)
        return self.out(self.rnn(x, state)[0])


def test_a_state_that_is_an_input_fixes_the_units_and_says_so():
    structure = trace(Given(), (torch.zeros(B, T, K), torch.zeros(1, B, H)))
    assert structure.families == ()
    reason = next(f.reason for f in structure.fixed if f.what == "rnn.weight_hh_l0[0]")
    assert reason.message == "starts from a state of fixed size"


def test_zeros_as_long_as_the_layer_says_follow_it():
    assert verify(Given(), torch.randn(B, T, K)).num_units == H // 2


def test_a_decoder_that_goes_on_from_the_state_of_an_encoder_shares_its_units():
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(9, K), nn.Linear(H, 9)
            self.encoder, self.decoder = nn.LSTM(K, H, 2), nn.LSTM(K, H, 2)

        def forward(self, source, target):
            _, state = self.encoder(self.embed(source))
            return self.out(self.decoder(self.embed(target), state)[0])

    example = (torch.randint(0, 9, (T, B)), torch.randint(0, 9, (T + 1, B)))
    structure = trace(Translator(), example)
    assert [(f.name, f.num_units) for f in structure.families] == [("embed", K), ("encoder", H)]
    verify(Translator(), example)


def test_parameters_along_the_time_steps_are_fixed():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.randn(T, 1, K))
            self.rnn, self.out = nn.RNN(K, H, nonlinearity="relu"), nn.Linear(H, 2)

        def forward(self, x):
            return self.out(self.rnn(x + self.position)[0])

    structure = trace(Positions(), torch.zeros(T, B, K))
    assert [f.name for f in structure.families] == ["rnn"]
    verify(Positions(), torch.randn(T, B, K))


def test_a_state_of_a_fixed_size_that_is_only_reordered_fixes_hidden_units():
    class Packed(Tagger):
        def __init__(self):
            super().__init__("LSTM")
            self.half = H // 2

        def forward(self, x):
            state = torch.zeros(1, B, 2 * self.half), torch.zeros(1, B, 2 * self.half)
            packed = pack_padded_sequence(self.first(x), torch.tensor([2, 4, 3]), False, False)
            out, (hidden, _) = self.rnn(packed, state)
            return self.steps(pad_packed_sequence(out)[0]), self.last(hidden[-1])

    explained = str(trace(Packed(), torch.randn(T, B, K)).explain("rnn.weight_hh_l0"))
    assert "got a state of size 6, expected 7" in explained
    assert not trace(Packed(), torch.randn(T, B, K)).families
