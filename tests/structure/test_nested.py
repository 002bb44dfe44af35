"""Models that are called with, or return, more than one tensor."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from secateur import trace, verify
from secateur.errors import UsageError
from secateur.structure import map_tensors, tensors_in


@dataclass(frozen=True)
class Batch:
    image: torch.Tensor
    others: list[torch.Tensor]
    name: str = "batch"


class Scores(NamedTuple):
    first: torch.Tensor
    second: dict[str, Any]


class Holder:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class Net(nn.Module):
    """Two inputs, a hidden layer, two outputs, wrapped by `form`."""

    def __init__(self, form=lambda out, extra, hidden: (out, extra)):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)
        self.out, self.extra = nn.Linear(4, 2), nn.Linear(4, 3)
        self.form = form

    def forward(self, batch, *, scale):
        hidden = (self.a(batch.image) + scale * self.b(batch.others[0])).relu()
        return self.form(self.out(hidden), self.extra(hidden), hidden)


EXAMPLE = {
    "batch": Batch(torch.randn(5, 3), [torch.randn(5, 2)]),
    "scale": torch.tensor(2.0),
}
FORMS = {
    "dict of lists": lambda out, extra, _: {"out": out, "rest": [extra, None]},
    "named tuple": lambda out, extra, _: Scores(out, {"extra": extra}),
    "dataclass": lambda out, extra, _: Batch(out, [extra]),
    "object in a dataclass": lambda out, extra, _: Batch(out, [Holder(kept=Holder(x=extra))]),
}


@pytest.mark.parametrize("form", FORMS)
def test_inputs_and_outputs_of_any_form_are_followed_and_compared(form):
    model = Net(FORMS[form])
    assert {f.what for f in trace(model, EXAMPLE).fixed} >= {"out.weight[0]", "extra.weight[0]"}
    assert verify(model, EXAMPLE).num_units == 2


@pytest.mark.parametrize(
    "form",
    [
        lambda out, _, hidden: Batch(out, [hidden]),
        lambda out, _, hidden: Holder(out=out, inner=Holder(deep={"h": hidden})),
    ],
)
def test_hidden_units_that_leave_inside_an_object_are_fixed(form):
    structure = trace(Net(form), EXAMPLE)
    assert structure.families == ()
    reason = next(f.reason for f in structure.fixed if f.what == "a.weight[0]")
    assert reason.message == "is an output of the model"


def test_a_model_that_returns_no_tensor_is_not_called_exact():
    with pytest.raises(UsageError, match="returns a float without tensors"):
        verify(Net(lambda *_: 1.0), EXAMPLE)


def test_mapping_leaves_the_original_and_what_holds_no_tensor_alone():
    batch, empty = Batch(torch.ones(1), [torch.ones(2)]), Holder(x=1)
    loop = Holder(own=[])
    loop.own.append(loop)
    twin = map_tensors(lambda t: t + 1, {"batch": batch, "rest": (empty, loop)})
    assert [t.tolist() for t in tensors_in(twin)] == [[2.0], [2.0, 2.0]]
    assert [t.tolist() for t in tensors_in(batch)] == [[1.0], [1.0, 1.0]]
    assert twin["rest"][0] is empty
    assert twin["rest"][1] is loop
    assert twin["batch"].name == "batch"


def test_a_packed_sequence_is_an_input_like_others():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.GRU(3, 4), nn.Linear(4, 2)

        def forward(self, packed):
            return self.out(self.rnn(packed)[1])

    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    assert verify(Reader(), (packed,)).num_units == 2


def test_a_buffer_that_the_forward_replaces_is_put_back_between_comparisons():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
            self.register_buffer("mean", torch.randn(4))

        def forward(self, x):
            x = self.first(x)
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            return self.last(x - self.mean)

    assert verify(Mean(), torch.randn(5, 3)).num_units == 2
