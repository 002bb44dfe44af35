"""Labels follow layout operations exactly as the data would."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.structure._label import Label, axis_label, reshaped


def _written_out(label: Label, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(label.ids, shape)


@st.composite
def _reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw two shapes of one size by cutting the same prime factors differently."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=6))

    def cut() -> tuple[int, ...]:
        places = sorted(draw(st.sets(st.integers(0, len(factors)), max_size=4)))
        edges = [0, *places, len(factors)]
        return tuple(math.prod(factors[a:b]) for a, b in itertools.pairwise(edges))

    return cut(), cut()


@given(_reshapes(), st.data())
def test_reshaping_a_label_is_reshaping_its_ids(shapes, data):
    old, new = shapes
    axis = data.draw(st.integers(0, len(old) - 1))
    label = axis_label(np.arange(1, old[axis] + 1), axis, len(old))
    result = reshaped(label, old, new)
    expected = _written_out(label, old).reshape(new)
    np.testing.assert_array_equal(_written_out(result, new), expected)
    assert all(result.ids.shape[a] == new[a] for a in result.axes)
    assert all(result.ids.shape[a] == 1 for a in range(len(new)) if a not in result.axes)


@given(st.permutations(range(4)))
def test_moving_axes_is_permuting_the_ids(order):
    shape = (2, 3, 1, 4)
    label = axis_label(np.arange(3), 1, 4)
    target = [order.index(axis) for axis in range(4)]
    expected = _written_out(label, shape).transpose(order)
    moved = label.moved(target, 4)
    np.testing.assert_array_equal(_written_out(moved, expected.shape), expected)
    assert moved.axes == {order.index(1)}


def test_splitting_an_axis_makes_a_joint_label_led_by_the_outer_axis():
    label = reshaped(axis_label(np.arange(6), 1, 2), (5, 6), (5, 2, 3))
    assert label.axes == {1, 2}
    assert label.major == 1
    np.testing.assert_array_equal(label.ids, torch.arange(6).reshape(1, 2, 3).numpy())


def test_flattening_space_into_channels_repeats_every_id():
    label = reshaped(axis_label(np.array([7, 8]), 1, 4), (3, 2, 2, 2), (3, 8))
    np.testing.assert_array_equal(label.ids, [[7, 7, 7, 7, 8, 8, 8, 8]])


def test_an_axis_of_size_one_stays_labelled_through_a_reshape_of_its_neighbours():
    label = reshaped(axis_label(np.array([5]), 1, 3), (2, 1, 6), (2, 1, 3, 2))
    assert label.axes == {1}


@pytest.mark.parametrize(("units", "axes"), [([-1, 7, 7], {0, 1}), ([-1, 7, 8], {1})])
def test_an_axis_of_one_is_where_the_last_unit_was_but_not_where_several_meet(units, axes):
    label = axis_label(np.array([1, 2]), 0, 2)
    assert reshaped(label, (2, 4), (1, 2, 4), np.array(units)).axes == axes
