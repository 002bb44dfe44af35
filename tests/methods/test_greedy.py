import itertools

import pytest
import torch

from secateur.errors import UsageError
from secateur.methods._greedy import Budget, choose
from secateur.structure import Decision
from tests.structures import convnet, mlp, residual


def budget(structure, share, kind="macs"):
    cost = getattr(structure.cost, kind)
    return Budget(name=kind, cost=cost, most=share * cost.value())


def taken(structure, decision):
    """Numbers of the removed units among all units."""
    return {
        structure.offsets[family] + unit
        for family, units in decision.units.items()
        for unit in units.tolist()
    }


def test_hand_computed_lowest_scores_go_until_the_budget_is_kept():
    """MACs of the perceptron 6-5-4-3 for a batch of 2: 2 (6 a + a b + 3 b), at first 124."""
    _, structure, _ = mlp()
    score_U = torch.tensor([0.5, 0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6])
    live = structure.everything()
    # order 1 (.1), 3 (.2), 5 (.3), 7 (.4), ...; widths (5, 4) 124, (4, 4) 104, (3, 4) 84, (3, 3) 72
    for share, wanted in ((104 / 124, {1}), (103 / 124, {1, 3}), (80 / 124, {1, 3, 5})):
        decision = choose(structure, live, score_U, [budget(structure, share)])
        assert taken(structure, decision) == wanted


def test_a_budget_that_is_kept_already_takes_nothing():
    _, structure, _ = mlp()
    decision = choose(structure, structure.everything(), torch.rand(9), [budget(structure, 1.0)])
    assert decision == Decision() or not decision


@pytest.mark.parametrize("build", [mlp, convnet, residual])
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_the_budget_is_kept_and_no_unit_could_be_given_back(build, kind):
    _, structure, _ = build()
    everything = structure.everything()
    cost = getattr(structure.cost, kind)
    for seed, share in itertools.product(range(5), (0.3, 0.45, 0.6, 0.8, 0.95)):
        score_U = torch.rand(structure.num_units, generator=torch.Generator().manual_seed(seed))
        limit = budget(structure, share, kind)
        decision = choose(structure, everything, score_U, [limit])
        live = everything.without(decision)
        assert cost.value(live.counts, live.layers) <= limit.most
        assert (live.counts >= 1).all()
        for family in decision.units:
            counts = live.counts
            counts[family] += 1
            assert cost.value(counts, live.layers) > limit.most


def test_units_given_back_are_the_most_important_ones():
    """Widths (5, 4) have 124 MACs, (4, 4) have 104, (5, 3) have 108 and (4, 3) have 90."""
    _, structure, _ = mlp()
    score_U = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.2])
    everything = structure.everything()
    assert taken(
        structure, choose(structure, everything, score_U, [budget(structure, 103 / 124)])
    ) == {4, 8}  # neither 104 nor 108 is little enough
    score_U[4], score_U[8] = 0.2, 0.1
    assert taken(
        structure, choose(structure, everything, score_U, [budget(structure, 105 / 124)])
    ) == {4}  # 8 went first and did not suffice; with 4 gone it may come back


def test_both_budgets_are_kept():
    _, structure, _ = convnet()
    limits = [budget(structure, 0.7), budget(structure, 0.5, "params")]
    everything = structure.everything()
    live = everything.without(choose(structure, everything, torch.rand(9), limits))
    for limit in limits:
        assert limit.cost.value(live.counts, live.layers) <= limit.most


def test_the_best_unit_of_a_family_and_what_scores_infinity_stay():
    _, structure, _ = mlp()
    score_U = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 9.0, float("inf"), 8.0, float("inf")])
    fewest = 2 * (6 * 1 + 1 * 2 + 3 * 2)  # unit 4 of the first family, 6 and 8 of the second
    limit = Budget(name="MACs", cost=structure.cost.macs, most=float(fewest))
    decision = choose(structure, structure.everything(), score_U, [limit])
    assert taken(structure, decision) == {0, 1, 2, 3, 5, 7}


def test_units_that_are_gone_are_not_taken_again():
    _, structure, _ = mlp()
    live = structure.everything().without(Decision(units={0: torch.tensor([0, 1])}))
    score_U = torch.tensor([0.0, 0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    decision = choose(structure, live, score_U, [budget(structure, 0.45)])
    assert taken(structure, decision).isdisjoint({0, 1})
    assert bool(decision)


def test_equal_scores_take_no_more_than_needed():
    _, structure, _ = mlp()
    decision = choose(
        structure, structure.everything(), torch.zeros(9), [budget(structure, 100 / 124)]
    )
    assert len(taken(structure, decision)) == 2


def test_a_budget_out_of_reach_says_how_far_units_go():
    _, structure, _ = mlp()
    with pytest.raises(UsageError) as caught:
        choose(structure, structure.everything(), torch.rand(9), [budget(structure, 0.1)])
    assert str(caught.value).startswith(
        "Removing units cannot bring the model down to 12 macs (the fewest possible are 20): one "
        "unit of each of the 2 families has to stay"
    )


def test_scores_that_are_no_numbers_are_refused():
    _, structure, _ = mlp()
    score_U = torch.rand(9)
    score_U[3] = float("nan")
    with pytest.raises(UsageError, match="1 of 9 scores are not a number"):
        choose(structure, structure.everything(), score_U, [budget(structure, 0.5)])
