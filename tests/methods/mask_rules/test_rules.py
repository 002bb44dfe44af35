"""What every rule promises, and the counts of those that mask a given share."""

import math
import re

import pytest
import torch

from secateur.errors import UsageError
from secateur.methods.mask_rules import (
    MASK_RULES,
    SAP,
    GlobalMagnitude,
    Magnitude,
    RandomWeights,
    mask_rule_named,
)

NAMES = sorted(MASK_RULES)


def weights():
    return {"a": torch.randn(8, 3, 3, 3), "b": 0.1 * torch.randn(50, 40), "c": torch.randn(10, 50)}


def all_kept(tensors):
    return {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}


def generator():
    return torch.Generator().manual_seed(0)


def num(masks):
    return sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_nested_over_levels_and_leave_the_old_ones_alone(name):
    rule, random = mask_rule_named(name), generator()
    kept = all_kept(weights())
    for _ in range(4):
        before = {n: mask.clone() for n, mask in kept.items()}
        after = rule.next_masks(weights(), kept, random)
        assert all(torch.equal(before[n], kept[n]) for n in kept)
        assert all(bool((after[n] <= kept[n]).all()) for n in kept)
        assert num(after) < num(kept)
        kept = after


@pytest.mark.parametrize("name", NAMES)
def test_equal_inputs_give_equal_masks(name):
    tensors = weights()
    first, second = (
        mask_rule_named(name).next_masks(tensors, all_kept(tensors), generator()) for _ in range(2)
    )
    assert all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("rule", [GlobalMagnitude(), RandomWeights()], ids=str)
def test_what_goes_of_all_tensors_is_the_share_rounded_up(rule):
    """f <= masked / left < f + 1 / left, at every level; after j levels about (1 - f)^j is left."""
    tensors = weights()
    kept, random = all_kept(tensors), generator()
    for _ in range(8):
        left = num(kept)
        kept = rule.next_masks(tensors, kept, random)
        assert left - num(kept) == -(-left // 5)
    assert num(kept) / 2716 == pytest.approx(0.8**8, rel=0.01)


def test_a_share_is_taken_of_decimals():
    """0.2 * 15 is 3.0000000000000004 in binary; 3 weights go, not 4."""
    tensors = {"a": torch.arange(1.0, 16.0)}
    assert num(GlobalMagnitude().next_masks(tensors, all_kept(tensors), generator())) == 12


def test_one_threshold_separates_what_global_magnitude_keeps():
    tensors = weights()
    kept = GlobalMagnitude(share=0.4).next_masks(tensors, all_kept(tensors), generator())
    stays = torch.cat([tensors[n][mask].abs() for n, mask in kept.items()])
    goes = torch.cat([tensors[n][~mask].abs() for n, mask in kept.items()])
    assert goes.max() < stays.min()
    assert float(kept["b"].float().mean()) < 0.5 < float(kept["a"].float().mean())


def test_magnitude_masks_every_tensor_below_its_own_quantile():
    """The released rule: |w| below the linear quantile of what is left; random numbers have no
    ties."""
    tensors = {"a": torch.randn(8, 3, 3, 3), "b": 0.1 * torch.randn(50, 41), "c": torch.randn(9)}
    kept = all_kept(tensors)
    for _ in range(3):
        expected = {}
        for name, mask in kept.items():
            left = tensors[name].abs()[mask].double()
            expected[name] = mask & (tensors[name].abs().double() >= torch.quantile(left, 0.2))
        kept = Magnitude().next_masks(tensors, kept, generator())
        assert all(torch.equal(kept[n], expected[n]) for n in kept)


def test_magnitude_empties_no_tensor():
    tensors = {"a": torch.randn(1), "b": torch.randn(2), "c": torch.randn(30)}
    kept = all_kept(tensors)
    for _ in range(30):
        kept = Magnitude(share=0.9).next_masks(tensors, kept, generator())
    assert {n: int(mask.sum()) for n, mask in kept.items()} == {"a": 1, "b": 1, "c": 1}


def test_global_magnitude_empties_a_tensor_of_small_weights():
    """The collapse that the record of a level names."""
    tensors = {"small": 1e-3 * torch.randn(40), "large": torch.ones(60) + torch.rand(60)}
    kept = GlobalMagnitude(share=0.4).next_masks(tensors, all_kept(tensors), generator())
    assert {n: int(mask.sum()) for n, mask in kept.items()} == {"small": 0, "large": 60}


@pytest.mark.parametrize("name", NAMES)
def test_ties_go_in_the_order_of_positions_and_a_rule_never_masks_everything(name):
    tensors = {"a": torch.zeros(10), "b": torch.zeros(5)}
    kept = all_kept(tensors)
    for _ in range(30):
        kept = mask_rule_named(name).next_masks(tensors, kept, generator())
    assert num(kept) >= 1
    masks = GlobalMagnitude().next_masks(tensors, all_kept(tensors), generator())
    assert masks["a"].tolist() == [False] * 3 + [True] * 7
    assert bool(masks["b"].all())


def test_a_kept_weight_that_is_zero_counts_as_left():
    """Where the released code counts nonzero weights, it loses it."""
    tensors = {"a": torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 4.0])}
    kept = Magnitude(share=0.2).next_masks(tensors, all_kept(tensors), generator())
    assert kept["a"].tolist() == [False, True, True, True, True, True]


def test_random_masks_do_not_depend_on_the_weights():
    zeros = {n: torch.zeros_like(t) for n, t in weights().items()}
    first = RandomWeights().next_masks(weights(), all_kept(zeros), generator())
    second = RandomWeights().next_masks(zeros, all_kept(zeros), generator())
    assert all(torch.equal(first[n], second[n]) for n in first)
    share = float(first["b"].float().mean())
    assert abs(share - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 2000)


def test_low_precision_weights_are_ranked_as_they_are():
    tensors = {"a": torch.tensor([3.0, 1.0, 2.0, 4.0, 5.0]).bfloat16()}
    kept = GlobalMagnitude(share=0.4).next_masks(tensors, all_kept(tensors), generator())
    assert kept["a"].tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("rule", [GlobalMagnitude(), Magnitude(), SAP()], ids=str)
def test_weights_that_are_nan_are_refused(rule):
    tensors = weights()
    tensors["b"][3, 4] = float("nan")
    message = (
        "b holds NaN, so its weights cannot be ranked. Training has diverged, or a score has: "
        "lower the learning rate, or look at the score's data."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        rule.next_masks(tensors, all_kept(tensors), generator())


@pytest.mark.parametrize("kind", [GlobalMagnitude, Magnitude, RandomWeights])
@pytest.mark.parametrize("share", [0.0, 1.0, -0.2])
def test_a_share_outside_of_zero_and_one_is_refused(kind, share):
    message = (
        f"{kind.__name__}(share={share}) does not say which part of the remaining weights is "
        "masked at every level. Choose a number between 0 and 1, such as share=0.2."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        kind(share=share)


def test_an_unknown_name_lists_the_known():
    message = (
        "There is no mask rule 'lth'. Known are global-magnitude, magnitude, random, sap; for any "
        "score of single weights make a secateur.methods.mask_rules.ByScore."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        mask_rule_named("lth")
