import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from secateur.errors import UsageError
from secateur.gates import Gates
from secateur.methods.scores import Oracle
from secateur.methods.scores import _oracle as module
from secateur.structure import Decision, trace
from secateur.surgery import copy_of, cut_
from tests.methods.scores.subjects import batches_for, cross_entropy, subject_of
from tests.structures import convnet, mlp, residual


class Recurrent(nn.Module):
    """A cell of its own kernel, which vmap does not know."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 6, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class Branching(nn.Module):
    """Control flow on numbers, which vmap cannot follow."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(3, 5)
        self.down = nn.Linear(5, 3)

    def forward(self, x):
        y = self.down(torch.relu(self.up(x)))
        return y if y.device.type == "meta" or float(y.detach().sum()) > 0 else y * 2


def without(model, structure, batches, unit):
    """Loss of a copy from which one unit was removed for good."""
    family = max(f for f, start in enumerate(structure.offsets[:-1]) if start <= unit)
    decision = Decision(units={family: torch.tensor([unit - structure.offsets[family]])})
    small = copy_of(model)
    cut_(small, structure, structure.everything(), decision, proof=False)
    return mean_loss(small, batches)


def mean_loss(model, batches):
    with torch.no_grad():
        losses = [float(cross_entropy(model.eval(), batch)) for batch in batches]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_together", [1, 4, 100])
@pytest.mark.parametrize("build", [mlp, convnet, residual])
def test_changes_are_those_of_a_network_from_which_the_unit_was_cut(build, num_together):
    built = build()
    model, structure, _ = built
    batches = batches_for(built)
    changes_U = Oracle(num_together).changes(subject_of(model, structure, batches=batches))
    dense = mean_loss(model, batches)
    wanted = [
        without(model, structure, batches, unit) - dense for unit in range(structure.num_units)
    ]
    assert_close(changes_U, torch.tensor(wanted, dtype=torch.float64), rtol=1e-4, atol=1e-6)
    score_U = Oracle(num_together).units(subject_of(model, structure, batches=batches))
    assert torch.equal(score_U, changes_U.abs())


@pytest.mark.parametrize(("build", "shape"), [(Recurrent, (8, 4, 3)), (Branching, (8, 3))])
def test_models_that_vmap_does_not_follow_are_measured_unit_by_unit(build, shape):
    model = build()
    batch = (torch.randn(*shape), torch.randint(3, (8,)))
    structure = trace(model, batch[0])
    changes_U = Oracle().changes(subject_of(model, structure, batches=[batch]))
    dense = mean_loss(model, [batch])
    wanted = [
        without(model, structure, [batch], unit) - dense for unit in range(structure.num_units)
    ]
    assert_close(changes_U, torch.tensor(wanted, dtype=torch.float64), rtol=1e-4, atol=1e-6)


def test_models_that_vmap_follows_are_measured_together(monkeypatch):
    alone = []
    one_by_one = module._Runner._one_by_one

    def counted(self, on_NU, batch):
        alone.append(len(on_NU))
        return one_by_one(self, on_NU, batch)

    monkeypatch.setattr(module._Runner, "_one_by_one", counted)
    built = residual()
    Oracle().changes(subject_of(*built[:2], batches=batches_for(built)))
    assert alone == [3]  # each family, to check


def test_what_lies_in_front_of_a_family_is_computed_once_for_all_its_units():
    """A layer of 6 x 6 weights takes 8 x 36 MACs for the batch of 8. The whole network runs once
    dense, and twice a family to compare both ways. Then six units of a family go at once: layers
    from where they are read on run six times, those before once."""
    layers = [nn.Linear(6, 6) for _ in range(4)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))
    batch = (torch.randn(8, 6), torch.randint(6, (8,)))
    structure = trace(model, batch[0])
    subject = subject_of(model, structure, batches=[batch])
    assert [family.num_units for family in structure.families] == [6, 6, 6]
    with FlopCounterMode(display=False) as counter:
        Oracle(num_together=6).changes(subject)
    at_once = sum((4 - behind) + 6 * behind for behind in (3, 2, 1))
    assert counter.get_total_flops() / 2 == (4 + 2 * 3 * 4 + at_once) * 8 * 36


def test_vectorised_losses_that_are_wrong_for_one_family_are_not_believed(monkeypatch):
    built = convnet()
    model, structure, _ = built
    subject = subject_of(model, structure, batches=batches_for(built))
    wanted_U = Oracle().changes(subject)
    weights_at = Gates.weights_at

    def blind(self, gate_U):
        seen = torch.cat([gate_U[:4], torch.ones(5)])  # the second family is never silenced
        return weights_at(self, seen)

    monkeypatch.setattr(Gates, "weights_at", blind)
    assert_close(Oracle().changes(subject), wanted_U, rtol=1e-4, atol=1e-6)


def test_a_model_without_units_has_no_changes():
    model = nn.Sequential(nn.Linear(3, 3))
    structure = trace(model, torch.zeros(1, 3))
    batch = (torch.randn(8, 3), torch.randint(3, (8,)))
    assert Oracle().changes(subject_of(model, structure, batches=[batch])).shape == (0,)


def test_no_unit_a_call_is_refused():
    with pytest.raises(UsageError, match="num_together=0 measures no unit"):
        Oracle(num_together=0)
