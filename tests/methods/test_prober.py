"""What a probe switches off."""

import torch

from secateur.methods import Estimator
from secateur.methods._nesting import Nesting
from secateur.methods._prober import Prober
from secateur.methods._schedule import plan
from secateur.methods._statistics import Statistics
from tests.methods.planted import perceptron, traced
from tests.structures import residual

ALL = torch.ones(14, dtype=torch.bool)


def prober(structure, *, units=True, layers=True):
    nesting = Nesting(structure, "cpu")
    statistics = Statistics(structure, nesting.family_U, Estimator.CURVATURE_CORRECTED, "cpu")
    schedule = plan(total_steps=3000, steps_per_epoch=100, settle_at=0.7)
    return Prober(structure, nesting, statistics, schedule, units=units, layers=layers)


def targets(asked, structure, alive=None):
    """What is off in every probe of a long run."""
    size = structure.num_units + structure.num_layers
    alive = torch.ones(size, dtype=torch.bool) if alive is None else alive
    generator, ones = torch.Generator().manual_seed(0), torch.ones(size).double()
    seen = []
    for step in range(2000):
        asked.plan(step, ones, ones, alive)
        on = asked.probe(alive[: structure.num_units], generator)
        if on is not None:
            seen.append((step, (~on).nonzero().flatten().tolist(), asked.needed_open().tolist()))
            asked.answer(on[: structure.num_units], 0.1)
    return seen


def test_a_step_in_twenty_is_probed_from_the_middle_of_the_warm_up_on():
    structure = residual().structure
    steps = [step for step, _, _ in targets(prober(structure), structure)]
    assert steps == list(range(100, 2000, 20))


def test_a_probe_takes_one_layer_or_units_of_one_family_with_their_layer_on():
    structure = residual().structure
    families = [range(4), range(4, 7), range(7, 12)]
    around = [[False, False], [True, False], [False, True]]
    kinds = set()
    for _, off, needed in targets(prober(structure), structure):
        assert len(off) == 1
        if off[0] >= 12:
            assert needed == [off[0] == 12, off[0] == 13]
            kinds.add(off[0])
        else:
            (family,) = [f for f, units in enumerate(families) if off[0] in units]
            assert needed == around[family]
            kinds.add(family)
    assert kinds == {0, 1, 2, 12, 13}


def test_a_sixteenth_of_a_family_is_switched_off_at_once():
    structure = traced(perceptron(32, 32), 5)
    assert {len(off) for _, off, _ in targets(prober(structure), structure)} == {4}


def test_what_is_gone_is_not_probed():
    structure = residual().structure
    alive = ALL.clone()
    alive[[0, 12]] = False
    off = {unit for _, units, _ in targets(prober(structure), structure, alive) for unit in units}
    assert off == {1, 2, 3, 7, 8, 9, 10, 11, 13}


def test_only_what_has_a_price_is_probed():
    structure = residual().structure
    only_units = targets(prober(structure, layers=False), structure)
    only_layers = targets(prober(structure, units=False), structure)
    assert all(off[0] < 12 for _, off, _ in only_units)
    assert all(off[0] >= 12 for _, off, _ in only_layers)
    assert targets(prober(structure, units=False, layers=False), structure) == []
