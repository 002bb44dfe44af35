import torch
from torch.testing import assert_close

from secateur.methods.scores._slices import slices_of, sum_over_units
from secateur.structure import Decision
from secateur.surgery import cut_
from tests.structures import mlp, residual


def test_hand_computed_sums_over_the_slices_of_a_unit():
    model, structure, _ = mlp()
    ones = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    sums_U = sum_over_units(slices_of(structure, structure.everything()), ones, 9)
    # family 0: 6 weights in, 1 bias, 4 weights out; family 2: 5 in, 1 bias, 3 out
    assert_close(sums_U, torch.tensor([11.0] * 5 + [9.0] * 4, dtype=torch.float64))


def test_sums_over_what_is_left_are_those_of_the_whole_model_with_zeros():
    """Oracle: zero the removed slices in the whole model instead of removing them."""
    model, structure, _ = residual()
    decision = Decision(units={0: torch.tensor([2]), 2: torch.tensor([0, 3])}, layers=(0,))
    live = structure.everything().without(decision)
    zeroed = {name: p.detach().clone() for name, p in model.named_parameters()}
    for family, live_U in zip(structure.families, live.units, strict=True):
        for member in family.members:
            if member.tensor in zeroed:
                gone = member.index[~live_U].flatten()
                zeroed[member.tensor].index_fill_(member.axis, gone, 0.0)
    for name in structure.layers[0].tensors:
        zeroed.pop(name, None)
    left_U = torch.cat(live.units)
    whole = slices_of(structure, structure.everything())
    wanted_U = torch.where(left_U, sum_over_units(whole, zeroed, len(left_U)), 0.0)

    cut_(model, structure, structure.everything(), decision, proof=False)
    values = {name: p.detach() for name, p in model.named_parameters()}
    sums_U = sum_over_units(slices_of(structure, live), values, len(left_U))
    assert_close(sums_U, wanted_U)
    assert sums_U[left_U].abs().min() >= 0
    assert (sums_U[:4][live.units[0]] != 0).all()
