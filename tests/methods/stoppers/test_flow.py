import math
import re

import pytest
import torch

from secateur.errors import UsageError
from secateur.methods.stoppers import FlowConsistency


class Scripted:
    """A flow that gives out what it is told, and counts."""

    def __init__(self, *values):
        self.values = [torch.tensor(value) for value in values]
        self.count = 0

    def measure(self):
        self.count += 1
        return self.values[min(self.count, len(self.values)) - 1]


def checks(stopper, number=5, level=1):
    """Chunks of a level until the stopper ends it, at most a number."""
    stopper.level_begins(level)
    for chunk in range(1, number + 1):
        if stopper.should_stop(chunk):
            return chunk
    return None


def against(reference, *values, **settings):
    return FlowConsistency(Scripted(*values), reference=torch.tensor(reference), **settings)


def test_distance_is_the_norm_of_the_difference():
    """(0.3, 0.4) is 0.5 long."""
    stopper = against([1.0, 1.0], [1.3, 0.6], eps=0.51)
    assert checks(stopper) == 1
    assert stopper.distance == pytest.approx(0.5)
    assert stopper.readings == {"flow distance": stopper.distance}
    assert stopper.because == "flow distance 0.5 < 0.51"


@pytest.mark.parametrize(
    ("norm", "distance"), [("l2", 1.0), ("rms", 0.5), ("relative", 1 / 4)], ids=str
)
def test_norms(norm, distance):
    """Four entries off by a half each; the reference is 4 long."""
    stopper = against([2.0] * 4, [2.5] * 4, norm=norm, eps=math.inf)
    checks(stopper)
    assert stopper.distance == pytest.approx(distance)


@pytest.mark.parametrize(("off_by", "stops"), [(0.0242, 1), (0.0243, None)])
def test_a_tenth_over_seventeen_pairs_is_what_each_may_be_off_by_the_root(off_by, stops):
    """0.1 / sqrt(17) = 0.02425, the eps of ResNet-18, with either norm."""
    for settings in ({"eps": 0.1}, {"eps": 0.1 / math.sqrt(17), "norm": "rms"}):
        assert checks(against([0.0] * 17, [off_by] * 17, **settings)) == stops


@pytest.mark.parametrize("min_chunks", [1, 3])
def test_no_distance_stops_at_the_first_chunk_allowed(min_chunks):
    assert checks(against([1.0], [1.0], eps=1e-9, min_chunks=min_chunks)) == min_chunks


def test_chunks_that_cannot_matter_are_not_measured():
    stopper = against([1.0], [1.0], min_chunks=4, patience=2)
    assert checks(stopper) == 4
    assert stopper._flow.count == 2


def test_eps_of_zero_never_stops():
    assert checks(against([1.0], [1.0], eps=0.0)) is None


def test_an_infinite_eps_stops_at_the_first_check():
    assert checks(against([1.0], [9.0], eps=math.inf)) == 1


@pytest.mark.parametrize("eps", [0.1, math.inf])
def test_a_flow_that_is_not_a_number_never_stops(eps):
    assert checks(against([1.0, 1.0], [1.0, math.nan], eps=eps)) is None


def test_patience_counts_hits_in_a_row():
    far, near = [9.0], [1.0]
    stopper = against([1.0], near, far, near, near, eps=0.1, patience=2)
    assert checks(stopper) == 4


def test_hits_of_the_last_level_do_not_count():
    stopper = against([1.0], [1.0], eps=0.1, patience=2)
    assert checks(stopper, number=1) is None
    assert checks(stopper, number=1, level=2) is None


def test_the_trained_dense_network_is_the_reference_by_default():
    """Level 0 trains its whole budget, and one measurement is made at its end."""
    flow = Scripted([5.0], [5.05])
    stopper = FlowConsistency(flow, eps=0.1)
    assert checks(stopper, level=0) is None
    assert flow.count == 0
    stopper.level_ends(0)
    assert stopper.reference.tolist() == [5.0]
    assert checks(stopper, level=1) == 1
    stopper.level_ends(1)
    assert stopper.reference.tolist() == [5.0]
    assert flow.count == 2


def test_the_rewind_point_can_be_the_reference():
    flow = Scripted([5.0], [7.0], [5.05])
    stopper = FlowConsistency(flow, eps=0.1, reference="rewind_point")
    assert checks(stopper, level=0) == 2
    stopper.level_ends(0)
    assert stopper.reference.tolist() == [5.0]


def test_another_run_measures_its_own_reference():
    stopper = FlowConsistency(Scripted([5.0], [6.0]), eps=0.1)
    for expected in (5.0, 6.0):
        stopper.level_begins(0)
        assert stopper.reference is None
        stopper.level_ends(0)
        assert stopper.reference.tolist() == [expected]


def test_a_given_reference_stays():
    stopper = against([1.0], [4.0])
    stopper.level_begins(0)
    stopper.level_ends(0)
    assert stopper.reference.tolist() == [1.0]


@pytest.mark.parametrize(
    "settings", [{"eps": -0.1}, {"eps": math.nan}, {"reference": "dense"}, {"norm": "l1"}], ids=str
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match=r"^FlowConsistency got eps=.* norm is one of 'l2', 'rms'"):
        FlowConsistency(Scripted([1.0]), **settings)


def test_a_reference_of_another_model_is_refused():
    message = (
        "The flow has 2 entries and its reference [3]. A reference has to be measured on the same "
        "model with the same settings."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        checks(against([1.0, 1.0, 1.0], [1.0, 1.0]))
