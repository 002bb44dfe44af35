"""Labels: which unit id every index of a tensor belongs to, and how layout operations move them.

A label holds its ids in reduced form: an int array with as many axes as the tensor it describes,
of size 1 along every axis on which the ids do not vary. Which axes vary is kept as an explicit set
(`axes`), because an axis of size 1 may well be labelled: one surviving head is still a head.
A joint label varies on several axes at once, such as (heads, head_dim) after a reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """Ids along some axes of one tensor.

    Attributes:
        ids: Ids in reduced form; ``ids.ndim`` is the tensor's.
        axes: Axes on which the ids vary.
        major: The most significant of the axes: the one whose steps skip the most ids.
    """

    ids: Ids
    axes: frozenset[int]
    major: int

    def moved(self, target: Sequence[int], ndim: int) -> Label:
        """Place axis ``i`` at ``target[i]`` of a tensor with ``ndim`` axes.

        Args:
            target: New place of each axis; -1 drops the axis, which must not be labelled.
            ndim: Number of axes of the result.

        Returns:
            The same ids in the new frame.
        """
        order = sorted((new, old) for old, new in enumerate(target) if new >= 0)
        shape = [1] * ndim
        for new, old in order:
            shape[new] = self.ids.shape[old]
        source = [old for _, old in order] + [old for old, new in enumerate(target) if new < 0]
        ids = self.ids.transpose(source).reshape(shape)
        return Label(ids, frozenset(target[a] for a in self.axes), target[self.major])

    def without(self, gone: frozenset[int]) -> Label:
        """Keep the first index along some axes, on which the ids no longer matter."""
        left = self.axes - gone
        index = tuple(slice(0, 1) if a in gone else slice(None) for a in range(self.ids.ndim))
        return Label(self.ids[index], left, self.major if self.major in left else outermost(left))


def outermost(axes: frozenset[int]) -> int:
    """Return the first of some axes, or -1 where there are none."""
    return min(axes, default=-1)


def axis_label(ids: Ids, axis: int, ndim: int) -> Label:
    """Label one axis of a tensor.

    Args:
        ids: One id for each index along the axis.
        axis: The axis.
        ndim: Number of axes of the tensor.

    Returns:
        A label on that axis alone.
    """
    shape = [1] * ndim
    shape[axis] = len(ids)
    return Label(ids.reshape(shape), frozenset((axis,)), axis)


def reshaped(
    label: Label,
    old: Sequence[int],
    new: Sequence[int],
    last: NDArray[np.int64] | None = None,
) -> Label:
    """Follow a reshape.

    Axes are matched in groups of equal cumulative size. A group without labelled axes only
    changes its number of ones; a group with some is written out and reshaped as the data would be.

    Args:
        label: Label of a tensor of shape ``old``.
        old: Shape before.
        new: Shape after, without -1.
        last: The unit of each id where that is the last of several, else -1. Where such a unit is
            split, an axis of size 1 is where the units were: (1 head, head_dim).

    Returns:
        The label of the reshaped tensor; on no axis at all where its axes of size 1 went away.
    """
    shape: list[int] = []
    full: list[int] = []
    axes: set[int] = set()
    written: set[int] = set()
    major = -1
    for old_group, new_group in _groups(old, new):
        if label.axes.isdisjoint(old_group):
            full += [1] * len(old_group)
            shape += [1] * len(new_group)
            continue
        full += [old[a] for a in old_group]
        shape += [new[a] for a in new_group]
        candidates = [a for a in new_group if new[a] > 1] or new_group[:1]
        if last is not None and len(candidates) < len(new_group) and _is_one(last[label.ids]):
            candidates = new_group
        axes |= set(candidates)
        if len(old_group) > 1 or len(new_group) > 1:
            written |= set(candidates)
        if label.major in old_group and candidates:
            major = candidates[0]
    ids = np.broadcast_to(label.ids, full).reshape(shape)
    for axis in sorted(written):
        first = ids.take([0], axis=axis)
        if len(axes) > 1 and ids.shape[axis] > 1 and bool((ids == first).all()):
            ids = first
            axes.discard(axis)
    return Label(ids, frozenset(axes), major if major in axes else outermost(frozenset(axes)))


def split_axes(old: Sequence[int], new: Sequence[int]) -> frozenset[int]:
    """Name the axes of a reshaped tensor that several of them make of one, or of several."""
    return frozenset(a for _, group in _groups(old, new) if len(group) > 1 for a in group)


def _is_one(units: NDArray[np.int64]) -> bool:
    """Tell whether all units are the same one, and there is one."""
    first = units.flat[0]
    return bool(first >= 0 and (units == first).all())


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Match the axes of two shapes of equal size in the finest groups of equal products.

    Args:
        old: Shape before.
        new: Shape after.

    Returns:
        (axes before, axes after) a group; axes of size 1 are matched one to one where both sides
        have one, else they join a neighbouring group.
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a = b = 1
        if i < len(old) and j < len(new) and old[i] == new[j]:
            groups.append(([i], [j]))
            i, j = i + 1, j + 1
            continue
        while True:
            if i < len(old) and (a <= b or j >= len(new)):
                a *= old[i]
                left.append(i)
                i += 1
            elif j < len(new):
                b *= new[j]
                right.append(j)
                j += 1
            if a == b and ((left and right) or (i >= len(old) and j >= len(new))):
                break
        groups.append((left, right))
    return groups
