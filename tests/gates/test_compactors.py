"""Compactors: the split of what reads a family into a kernel and a matrix."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.gates import Compactors, compactable
from secateur.structure import Decision, Member, trace
from secateur.surgery import cut_
from tests.structures import mlp, residual


class Read(nn.Module):
    """One family that a convolution and, with four positions a channel, a linear layer read."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Conv2d(3, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.conv = nn.Conv2d(5, 4, 3, padding=1)
        self.fc = nn.Linear(20, 2)

    def forward(self, x: Tensor, matrix: Tensor | None = None) -> Tensor:
        x = torch.relu(self.norm(self.make(x)))
        if matrix is not None:
            # Unit j passes on to the kernel of d what the matrix says in row j.
            x = torch.einsum("bjhw,jd->bdhw", x, matrix)
        near = self.conv(x).mean(dim=(2, 3))
        return near[:, :2] + near[:, 2:] + self.fc(nn.functional.avg_pool2d(x, 3).flatten(1))


IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def made(seed: int = 0) -> tuple[Read, Compactors]:
    torch.manual_seed(seed)
    model = Read().double()
    return model, Compactors(model, trace(model, IMAGES))


def squares(output: Tensor) -> Tensor:
    return (output - 1).square().sum()


def units(model: nn.Module, compactors: Compactors) -> int:
    """Find the family of the five units."""
    return next(f for f, matrix in compactors.matrices.items() if len(matrix) == 5)


def test_an_identity_changes_no_bit():
    model, compactors = made()
    before = copy.deepcopy(model.state_dict())
    compactors.take_off_()
    compactors.put_on_()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("training", [True, False])
def test_the_product_computes_what_a_matrix_between_units_and_readers_would(training):
    model, compactors = made()
    model.train(training)
    explicit = copy.deepcopy(model)
    family = units(model, compactors)
    compactors.take_off_()
    compactors.matrices[family].normal_()
    compactors.put_on_()
    expected = explicit(IMAGES, compactors.matrices[family])
    assert torch.allclose(model(IMAGES), expected, atol=1e-12)
    assert model.conv.weight.shape == (4, 5, 3, 3)
    assert [type(m) for m in model.modules()] == [type(m) for m in explicit.modules()]


def test_kernels_and_compactors_get_the_gradients_that_backpropagation_gives():
    model, compactors = made()
    explicit = copy.deepcopy(model)
    family = units(model, compactors)
    compactors.take_off_()
    matrix = compactors.matrices[family].normal_()
    compactors.put_on_()
    squares(model(IMAGES)).backward()
    own = matrix.clone().requires_grad_()
    squares(explicit(IMAGES, own)).backward()
    seen = model.conv.weight.grad
    compactors.take_off_()
    assert torch.allclose(compactors.gradients[family], own.grad, rtol=1e-9)
    for (name, mine), other in zip(model.named_parameters(), explicit.parameters(), strict=True):
        assert torch.equal(mine, other), name
        assert torch.allclose(mine.grad, other.grad, rtol=1e-9), name
    compactors.put_on_()
    assert model.conv.weight.grad is seen


def test_scaled_gradients_are_unscaled_for_compactors_only():
    model, compactors = made()
    family = units(model, compactors)
    squares(model(IMAGES)).backward()
    compactors.take_off_()
    plain, kept = compactors.gradients[family], model.conv.weight.grad
    compactors.put_on_()
    compactors.take_off_(scale=8.0)
    assert torch.allclose(compactors.gradients[family] * 8, plain)
    assert torch.allclose(model.conv.weight.grad, kept)


def test_cutting_units_of_zero_rows_changes_nothing():
    model, compactors = made()
    structure = trace(model, IMAGES)
    model.eval()
    family = units(model, compactors)
    compactors.take_off_()
    compactors.matrices[family].normal_()
    compactors.matrices[family][[1, 3]] = 0
    compactors.put_on_()
    before = model(IMAGES)
    decision = Decision(units={family: torch.tensor([1, 3])})
    cut_(model, structure, structure.everything(), decision)
    assert model.conv.in_channels == 3
    assert model.fc.in_features == 12
    assert torch.allclose(model(IMAGES), before, atol=1e-12)


def test_a_row_that_is_nearly_zero_bounds_what_its_removal_changes():
    model, compactors = made()
    model.eval()
    family = units(model, compactors)
    changes = []
    for size in (1e-2, 1e-4):
        compactors.take_off_()
        compactors.matrices[family][2] = torch.full((5,), size, dtype=torch.float64)
        compactors.put_on_()
        small = model(IMAGES)
        compactors.take_off_()
        compactors.matrices[family][2] = 0
        compactors.put_on_()
        changes.append(float((model(IMAGES) - small).abs().max().detach()))
    assert changes[0] > 0
    assert changes[1] == pytest.approx(changes[0] / 100)


def test_only_channels_of_a_shared_stream_have_no_compactor():
    structure = residual().structure
    names = [structure.families[family].name for family in compactable(structure)]
    assert names == ["block1.conv1", "block2.conv1"]


def with_reader(tensor: str, axis: int, index: Tensor) -> tuple[int, ...]:
    """Let the second family of a perceptron read one more place, and ask for compactors."""
    structure = mlp().structure
    first, second = structure.families
    reader = Member(tensor=tensor, axis=axis, index=index, consumes=True)
    second = dataclasses.replace(second, members=(*second.members, reader))
    return compactable(dataclasses.replace(structure, families=(first, second)))


def test_families_that_are_read_in_places_of_their_own_have_compactors():
    assert compactable(mlp().structure) == (0, 1)


def test_a_tensor_that_is_read_on_two_axes_keeps_its_families_from_having_one():
    assert with_reader("2.weight", 0, torch.arange(4).unsqueeze(1)) == ()


def test_positions_that_two_units_share_keep_their_families_from_having_one():
    assert with_reader("2.weight", 1, torch.arange(4).unsqueeze(1)) == ()
    assert with_reader("4.weight", 1, torch.arange(4).unsqueeze(1)) == (0,)


def test_weights_may_change_before_the_first_update_and_not_later():
    model, compactors = made()
    with torch.no_grad():
        model.conv.weight.zero_()
    compactors.take_off_()
    compactors.put_on_()
    assert not model.conv.weight.any()
    with torch.no_grad():
        model.conv.weight.add_(1)
    with pytest.raises(UsageError, match=r"conv\.weight was changed between two updates"):
        compactors.take_off_()


def test_loading_what_was_saved_counts_as_no_change():
    model, compactors = made()
    compactors.take_off_()
    compactors.matrices[units(model, compactors)].normal_()
    compactors.put_on_()
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    compactors.take_off_()


def test_kernels_of_another_model_are_refused():
    _, compactors = made()
    with pytest.raises(UsageError, match="has nothing for the kernel of"):
        compactors.load_kernels({"other": torch.zeros(1)})
