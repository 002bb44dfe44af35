import copy
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import SurgeryError
from secateur.structure import Decision
from secateur.surgery import cut_
from tests import structures

ELEMENTWISE = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "SGD nesterov foreach": lambda p: torch.optim.SGD(
        p, lr=0.1, momentum=0.9, nesterov=True, foreach=True
    ),
    "SGD fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "AdamW fused amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True, amsgrad=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "RMSprop foreach": lambda p: torch.optim.RMSprop(p, lr=0.01, foreach=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "Adagrad fused": lambda p: torch.optim.Adagrad(p, lr=0.01, fused=True),
    "Adadelta": torch.optim.Adadelta,
    "Adamax": torch.optim.Adamax,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
}


def kept_entries(name, tensor):
    """Cut the tensors of `structures.mlp` by hand: units 1, 3 of family 0 and 0 of family 1 go."""
    first, second = [0, 2, 4], [1, 2, 3]
    rows = {"0.": first, "2.": second}.get(name[:2])
    columns = {"2.weight": first, "4.weight": second}.get(name)
    tensor = tensor if rows is None else tensor[rows]
    return tensor if columns is None else tensor[:, columns]


DECISION = Decision(units={0: torch.tensor([1, 3]), 1: torch.tensor([0])})


def step_(model, optimizer, seed, cut=False):
    """Give every parameter a random gradient, cut by hand where the model is, and step."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: p.shape for name, p in structures.mlp().model.named_parameters()}
    for name, parameter in model.named_parameters():
        grad = torch.randn(shapes[name], generator=generator)
        parameter.grad = kept_entries(name, grad).clone() if cut else grad
    optimizer.step()


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_updates_after_a_cut_equal_those_of_the_whole_model_for_the_entries_that_stay(kind):
    model, structure, _ = structures.mlp()
    whole = copy.deepcopy(model)
    optimizer = ELEMENTWISE[kind](model.parameters())
    reference = ELEMENTWISE[kind](whole.parameters())
    for seed in range(3):
        step_(model, optimizer, seed)
        step_(whole, reference, seed)
    cut_(model, structure, structure.everything(), DECISION, optimizers=[optimizer], proof=False)
    for seed in range(3, 6):
        step_(model, optimizer, seed, cut=True)
        step_(whole, reference, seed)
    expected = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        wanted = kept_entries(name, expected[name].detach())
        assert_close(parameter.detach(), wanted, rtol=1e-6, atol=1e-7)


def test_a_gradient_waiting_for_its_step_is_cut_along():
    model, structure, _ = structures.mlp()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    wanted = {name: kept_entries(name, p.grad.clone()) for name, p in model.named_parameters()}
    cut_(model, structure, structure.everything(), DECISION, proof=False)
    assert_close({name: p.grad for name, p in model.named_parameters()}, wanted)


def test_row_and_column_statistics_lose_what_their_axis_loses():
    model, structure, _ = structures.mlp()
    optimizer = torch.optim.Adafactor(model.parameters())
    step_(model, optimizer, 0)
    weight = model[2].weight
    before = {key: value.clone() for key, value in optimizer.state[weight].items()}
    assert before["row_var"].shape == (4, 1)
    assert before["col_var"].shape == (1, 5)
    cut_(model, structure, structure.everything(), DECISION, optimizers=[optimizer], proof=False)
    after = optimizer.state[weight]
    assert_close(after["row_var"], before["row_var"][[1, 2, 3]])
    assert_close(after["col_var"], before["col_var"][:, [0, 2, 4]])
    assert_close(after["step"], before["step"])
    step_(model, optimizer, 1, cut=True)


class Statistics(torch.optim.Optimizer):
    """Keeps statistics in the shapes that a test asks for."""

    def __init__(self, params, shapes):
        super().__init__(params, {})
        self.shapes = shapes

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dim() == 2 and parameter not in self.state:
                    for key, shape in self.shapes(tuple(parameter.shape)).items():
                        values = torch.arange(float(torch.Size(shape).numel()))
                        self.state[parameter][key] = values.reshape(shape)


def squares():
    model, structure, _ = structures.mlp()
    model[0] = nn.Linear(5, 5)
    return model, structure


def test_row_and_column_statistics_of_a_square_are_told_apart_by_their_names():
    model, structure = squares()
    optimizer = Statistics(
        model.parameters(), lambda s: {"exp_avg_sq_row": s[:1], "exp_avg_sq_col": s[1:]}
    )
    optimizer.step()
    cut_(model, structure, structure.everything(), DECISION, optimizers=[optimizer], proof=False)
    state = optimizer.state[model[0].weight]  # [5, 5] before; rows 1 and 3 went
    assert state["exp_avg_sq_row"].tolist() == [0.0, 2.0, 4.0]
    assert state["exp_avg_sq_col"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("key", "shape"), [("factor", lambda s: s[:1]), ("row", lambda s: (s[0], 7))]
)
def test_statistics_that_cannot_be_matched_are_refused_and_everything_stays(key, shape):
    model, structure = squares()
    optimizer = Statistics(model.parameters(), lambda s: {key: shape(s)})
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    expected = (
        f"The optimizer keeps '{key}' of shape {tuple(shape((5, 5)))} for parameter 0.weight of "
        "shape (5, 5), and nothing says which positions belong together. Expected the parameter's "
        "shape, with axes left out or of size 1. Use an optimizer of torch.optim, or make a new "
        "one after the last removal."
    )
    with pytest.raises(SurgeryError, match=f"^{re.escape(expected)}$"):
        cut_(model, structure, structure.everything(), DECISION, optimizers=[optimizer])
    assert_close((model.state_dict(), optimizer.state_dict()), before, rtol=0, atol=0)


def test_lbfgs_is_refused():
    model, structure, _ = structures.mlp()
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(SurgeryError, match=r"^LBFGS keeps one flat vector over all parameters"):
        cut_(model, structure, structure.everything(), DECISION, optimizers=[optimizer])


def test_parameters_of_a_removed_layer_leave_groups_and_state_and_the_groups_stay():
    model, structure, example = structures.residual()
    inner = list(model.block1.parameters())
    rest = [p for p in model.parameters() if all(p is not q for q in inner)]
    optimizer = torch.optim.AdamW([{"params": inner, "lr": 0.5}, {"params": rest}], lr=0.1)
    model(example).sum().backward()
    optimizer.step()
    groups = optimizer.param_groups
    cut_(
        model,
        structure,
        structure.everything(),
        Decision(layers=(0,)),
        optimizers=[optimizer],
        proof=False,
    )
    assert optimizer.param_groups is groups
    assert [len(group["params"]) for group in groups] == [0, len(rest)]
    assert [group["lr"] for group in groups] == [0.5, 0.1]
    assert set(optimizer.state) == set(rest)
    optimizer.zero_grad()
    model(example).sum().backward()
    optimizer.step()
