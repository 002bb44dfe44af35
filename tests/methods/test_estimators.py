"""Estimators against the exact loss of every mask of small networks, in float64.

Letters: S gates, M masks of the other gates, B samples.
"""

import itertools
import math

import pytest
import torch
from torch.func import grad, vmap
from torch.testing import assert_close

from secateur.methods._estimators import (
    DECAY,
    RISE,
    Estimator,
    curvature,
    curvature_corrected,
    empty_moments,
    straight_through,
    trapezoid,
    update_moments,
)
from tests.methods.loop import close, gate_gradients, restore
from tests.structures import convnet, mlp


def hessian(loss):
    """Second derivatives by differences of slopes; torch.func.hessian warns on every call."""
    step_SS = 1e-5 * torch.eye(9, dtype=torch.float64)

    def at_point(point_S):
        up_SS, down_SS = vmap(grad(loss))(point_S + step_SS), vmap(grad(loss))(point_S - step_SS)
        return (up_SS - down_SS) / 2e-5

    return at_point


ONE = torch.ones(1, dtype=torch.float64)


def gated_mlp(model, x_B6, gate_S):
    """The network of `mlp()` with gates on its activations: an oracle that touches no weight."""
    first, _, second, _, third = model
    hidden_B5 = torch.relu(first(x_B6)) * gate_S[:5]
    return third(torch.relu(second(hidden_B5)) * gate_S[5:])


@pytest.fixture
def network():
    built = mlp()
    generator = torch.Generator().manual_seed(2)
    x_B6 = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    labels_B = torch.randint(0, 3, (12,), generator=generator)
    model = built.model.double()
    for parameter in model.parameters():
        parameter.data *= 2

    def loss(gate_S):
        return torch.nn.functional.cross_entropy(gated_mlp(model, x_B6, gate_S), labels_B)

    return model, built.structure, loss, (x_B6, labels_B)


def masks(num):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=num)), dtype=torch.float64)


def others(gate, num):
    """All masks of `num` gates with one of them left at 1."""
    all_MS = masks(num)
    return all_MS[all_MS[:, gate] == 1]


def at(mask_MS, gate, value):
    moved_MS = mask_MS.clone()
    moved_MS[:, gate] = value
    return moved_MS


def busiest(model, structure, x):
    """The unit of the last family whose absence changes the output most."""
    changes = []
    for unit in range(structure.offsets[1], structure.num_units):
        on_U = torch.ones(structure.num_units, dtype=torch.bool)
        clean = model(x).detach()
        on_U[unit] = False
        kept = close(model, structure, on_U, torch.zeros(0, dtype=torch.bool))
        changes.append((model(x) - clean).norm().item())
        restore(model, kept)
    return changes.index(max(changes))


def moments_of(off, on):
    """Moments of one gate: lists of (g, B g²) seen off and on, each seen equally often."""
    total = len(off) + len(on)
    rows = []
    for seen in (off, on):
        values = torch.tensor(seen, dtype=torch.float64).reshape(-1, 2)
        rows.append([len(seen) / total, *(values.sum(dim=0) / total).tolist()])
    return torch.tensor(rows, dtype=torch.float64).unsqueeze(2)


def test_slices_give_the_derivative_by_a_gate_at_every_mask(network):
    model, structure, loss, (x_B6, labels_B) = network
    derivative = grad(loss)
    for mask_S in masks(9)[::7]:
        kept = close(model, structure, mask_S > 0, torch.zeros(0, dtype=torch.bool))
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x_B6), labels_B).backward()
        units_S, _ = gate_gradients(model, structure, kept)
        restore(model, kept)
        assert_close(units_S, derivative(mask_S), rtol=1e-9, atol=1e-12)


def test_expected_loss_is_affine_in_every_probability(network):
    _, _, loss, _ = network
    mask_MS = masks(9)
    loss_M = vmap(loss)(mask_MS)
    theta_S = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)

    def expected(theta_S):
        return (loss_M * torch.where(mask_MS > 0, theta_S, 1 - theta_S).prod(dim=1)).sum()

    for gate in range(9):
        ends = [expected(at(theta_S[None], gate, value)[0]) for value in (0.0, 1.0)]
        middle = expected(at(theta_S[None], gate, 0.3)[0])
        assert_close(middle, 0.7 * ends[0] + 0.3 * ends[1], rtol=1e-12, atol=1e-12)


def third_derivatives(loss, mask_S, gate):
    """Size of the third derivative along a gate on a grid of [0, 1], from differences of slopes."""
    grid = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
    points = mask_S.repeat(len(grid), 1)
    points[:, gate] = grid
    slope = vmap(grad(loss))(points)[:, gate].detach()
    return ((slope[2:] - 2 * slope[1:-1] + slope[:-2]) / (grid[1] - grid[0]) ** 2).abs()


def ends_of(loss, mask_MS, gate):
    """Rise of the loss, and the slopes at the two ends, for every mask."""
    off_MS = at(mask_MS, gate, 0.0)
    off_M, on_M = vmap(loss)(off_MS), vmap(loss)(mask_MS)
    slopes = [vmap(grad(loss))(m)[:, gate] for m in (off_MS, mask_MS)]
    return (off_M - on_M).detach(), slopes[0].detach(), slopes[1].detach()


# Relus further up move with a gate of the first family: where one flips, the slope jumps and no
# bound by derivatives holds. The last family's gates flip nothing, so the bounds are theirs.
LAST_FAMILY = range(5, 9)
SLACK = 1.02  # the largest of 39 differences stands for the supremum


def test_trapezoid_errs_by_at_most_a_twelfth_of_the_third_derivative(network):
    _, _, loss, _ = network
    errors, straight = [], []
    for gate in LAST_FAMILY:
        mask_MS = others(gate, 9)
        rise_M, off_M, on_M = ends_of(loss, mask_MS, gate)
        bound = max(float(third_derivatives(loss, mask_S, gate).max()) for mask_S in mask_MS)
        moments = moments_of([(float(off_M.mean()), 0.0)], [(float(on_M.mean()), 0.0)])
        errors.append(abs(float(trapezoid(moments, 1, ONE)) - float(rise_M.mean())))
        straight.append(abs(float(-on_M.mean() - rise_M.mean())))
        assert errors[-1] <= SLACK * bound / 12
    assert max(straight) > 1e-3
    assert max(errors) < max(straight) / 5


def test_curvature_corrected_errs_by_at_most_a_sixth_of_the_third_derivative(network):
    # With the true h at the drawn gate, Taylor's remainder is a sixth of the third derivative.
    _, _, loss, _ = network
    for gate in LAST_FAMILY:
        for mask_S in others(gate, 9)[::5]:
            off_S = at(mask_S[None], gate, 0.0)[0]
            rise = float((loss(off_S) - loss(mask_S)).detach())
            bound = SLACK * float(third_derivatives(loss, mask_S, gate).max()) / 6
            for drawn_S, is_on in ((mask_S, True), (off_S, False)):
                g = float(grad(loss)(drawn_S)[gate].detach())
                h = float(hessian(loss)(drawn_S)[gate, gate].detach())
                if g * g < 1e-12:
                    continue
                seen = [(g, g * g)]
                moments = moments_of([] if is_on else seen, seen if is_on else [])
                factor = torch.tensor([h / (g * g)], dtype=torch.float64)
                error = abs(float(curvature_corrected(moments, 1, factor)) - rise)
                assert error <= bound + 1e-10


@pytest.mark.parametrize("built", [mlp, convnet])
def test_gauss_newton_error_is_half_the_slope_that_masks_leave_unexplained(built):
    """Regression on the network's own outputs plus every sign pattern of unit noise.

    Over the signs E[r r'] is the identity, so the mean of g_i² is the Gauss-Newton curvature plus
    s², the square of the slope against noise-free targets. The loss is quadratic in a gate of
    the last family, whence an error of E[s²] / 2; and of 0 where nothing else is off.
    """
    model, structure, example = built()
    model = model.double().eval()
    x = torch.cat([example.double(), example.double().flip(0) * 2])[:2]
    with torch.no_grad():
        clean = model(x)
    gate = structure.offsets[1] + busiest(model, structure, x)
    rest = [u for u in range(structure.offsets[1], structure.num_units) if u != gate]
    signs = masks(3) * 2 - 1
    layers = torch.zeros(0, dtype=torch.bool)

    def measure(on_U, inputs, target):
        kept = close(model, structure, on_U, layers)
        model.zero_grad()
        value = ((model(inputs[None]) - target) ** 2).sum() / 2
        value.backward()
        units_U, _ = gate_gradients(model, structure, kept)
        restore(model, kept)
        return value.item(), units_U[gate].item()

    samples = {False: [], True: []}
    slopes, rises = [], []
    for on in masks(len(rest)):
        ends = []
        for is_on in (False, True):
            on_U = torch.ones(structure.num_units, dtype=torch.bool)
            on_U[gate], on_U[rest] = is_on, on > 0
            pairs = list(itertools.product(zip(x, clean, strict=True), signs))
            seen = [measure(on_U, inputs, target + sign) for (inputs, target), sign in pairs]
            samples[is_on] += [(g, g * g) for _, g in seen]
            ends.append(sum(value for value, _ in seen) / len(seen))
            if is_on:
                slopes += [measure(on_U, *pair)[1] for pair in zip(x, clean, strict=True)]
        rises.append(ends[0] - ends[1])
    exact = sum(rises) / len(rises)
    unexplained = sum(s * s for s in slopes) / len(slopes) / 2
    only_on = moments_of([], samples[True])
    error = float(curvature_corrected(only_on, 1, ONE)) - exact
    assert_close(error, unexplained, rtol=1e-9, atol=1e-12)
    both = moments_of(samples[False], samples[True])
    assert_close(trapezoid(both, 1, ONE).item(), exact, rtol=1e-10, atol=1e-12)
    # Nothing else off: exact, though the straight-through estimate is 0.
    full = samples[True][-len(signs) * len(x) :]
    alone = moments_of([], full)
    assert_close(curvature_corrected(alone, 1, ONE).item(), rises[-1], rtol=1e-10, atol=1e-12)
    assert abs(straight_through(alone, 1, ONE).item()) < 1e-10
    assert rises[-1] > 1e-4


def test_curvature_over_batches_counts_a_common_slope_once():
    # g_i = 3 +- 1: Var[g_i] = 1 and E[g_i]² = 9, so h = 10. Batches of 4 have variance 1 / 4.
    moments = empty_moments(1, "cpu")
    signs = [sum(s) / 4 for s in itertools.product([-1, 1], repeat=4)]
    gate = torch.ones(1, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    means = []
    for step in range(4000):
        pick = int(torch.randint(16, (1,), generator=generator))
        g = torch.tensor([3.0 + signs[pick]], dtype=torch.float64)
        moments = update_moments(moments, g, gate, gate, 4)
        if step > 200:
            means.append(float(curvature(moments, 4)))
    # An average over 39 steps knows its own mean to 1 / 39 of the variance.
    assert sum(means) / len(means) == pytest.approx(10, abs=0.1)


def test_moments_weigh_steps_by_decay_and_skip_what_was_not_seen():
    on = torch.tensor([True, True, False])
    seen = torch.tensor([True, False, True])
    moments = update_moments(
        empty_moments(3, "cpu"),
        torch.tensor([2.0, math.nan, 5.0], dtype=torch.float64),
        on,
        seen,
        10,
    )
    w = 1 - DECAY
    assert_close(moments[1, :, 0], torch.tensor([w, 2 * w, 40 * w], dtype=torch.float64))
    assert_close(moments[0, :, 2], torch.tensor([w, 5 * w, 250 * w], dtype=torch.float64))
    assert moments[:, :, 1].abs().sum() == 0
    assert moments[0, :, 0].abs().sum() == 0


def test_every_estimator_has_a_formula_and_returns_zero_before_anything_is_seen():
    assert set(RISE) == set(Estimator)
    for rise in RISE.values():
        assert_close(rise(empty_moments(2, "cpu"), 8, torch.ones(2).double()).tolist(), [0.0, 0.0])


def test_trapezoid_takes_an_end_it_never_saw_from_the_other():
    moments = moments_of([], [(0.5, 0.25)])
    assert trapezoid(moments, 1, ONE).item() == pytest.approx(-0.5)
