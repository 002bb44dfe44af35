"""Einstein sums of two tensors, in the frame of their letters.

PyTorch makes products, views and sums of them in an order that depends on sizes; the letters say
what is meant at any size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from secateur.structure._coupling import Operand, contract, couple, reduced
from secateur.structure.rules._registry import Call, empty_like_shape, info_of, rule


class _Terms(NamedTuple):
    """The axes of both tensors and of the result, by letter; axes of an ellipsis have numbers."""

    left: list[str]
    right: list[str]
    out: list[str]


def is_plain_sum(args: Sequence[Any]) -> bool:
    """Tell whether an Einstein sum is one of two tensors, written as an equation.

    Args:
        args: Arguments of `torch.einsum`.

    Returns:
        False for other numbers of tensors, sublists, and diagonals (a letter twice in a tensor).
    """
    tensors = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
    if len(tensors) != 2 or not isinstance(args[0], str):
        return False
    terms = _terms(args[0], [t.ndim for t in tensors])
    return all(len(set(letters)) == len(letters) for letters in (terms.left, terms.right))


@rule("einsum")
def einsum(call: Call) -> Tensor:
    """Multiply two tensors letter by letter and sum over letters that the result does not have."""
    tensors = call.args[1]
    terms = _terms(call.args[0], [t.ndim for t in tensors])
    sizes: dict[str, int] = {}
    for tensor, letters in zip(tensors, terms[:2], strict=True):
        for letter, size in zip(letters, tensor.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    frame = {letter: axis for axis, letter in enumerate(sizes)}
    shared = set(terms.left) & set(terms.right)
    left, right = (
        _framed(call, tensor, letters, frame, {*shared, *terms.out})
        for tensor, letters in zip(tensors, terms[:2], strict=True)
    )
    over = frozenset(frame[letter] for letter in shared - set(terms.out))
    if over:
        stored = [info_of(t).tensor is not None for t in tensors]
        weight = 1 if stored[1] else (0 if stored[0] else None)
        factors = tuple(info_of(t).node for t in tensors)
        labels = contract(call.tape, left, right, over, weight, factors)
        if all(sizes[letter] == 1 for letter in shared - set(terms.out)):
            # Nothing is summed: PyTorch multiplies element by element.
            call.tape.charges.pop()
    else:
        labels = couple(call.tape, (left, right))
    target = [terms.out.index(letter) if letter in terms.out else -1 for letter in frame]
    out = empty_like_shape(tensors[0], [sizes[letter] for letter in terms.out])
    return call.put(out, [label.moved(target, out.ndim) for label in labels])


def _framed(
    call: Call, tensor: Tensor, letters: Sequence[str], frame: dict[str, int], kept: set[str]
) -> Operand:
    """Place a tensor in the frame; letters that only it has are summed before."""
    alone = [axis for axis, letter in enumerate(letters) if letter not in kept]
    message = "is reduced over, so the result depends on every unit"
    labels = reduced(call.tape, info_of(tensor).labels, alone, message)
    target = [frame[letter] for letter in letters]
    shape = [1] * len(frame)
    for axis, place in enumerate(target):
        shape[place] = 1 if axis in alone else tensor.shape[axis]
    return Operand(tuple(label.moved(target, len(frame)) for label in labels), tuple(shape))


def _terms(equation: str, ndims: Sequence[int]) -> _Terms:
    """Read an equation.

    Args:
        equation: Such as ``"bij,jk->bik"``; without a result it has the letters that come once.
        ndims: Numbers of axes of both tensors.

    Returns:
        Letters of both tensors and of the result.
    """
    given, arrow, result = equation.replace(" ", "").partition("->")
    left, right = (_letters(term, ndim) for term, ndim in zip(given.split(","), ndims, strict=True))
    dots = max(([x for x in term if x.isdigit()] for term in (left, right)), key=len)
    if arrow:
        before, ellipsis, after = result.partition("...")
        return _Terms(left, right, [*before, *(dots if ellipsis else ()), *after])
    counts = Counter([*left, *right])
    once = sorted(x for x, count in counts.items() if count == 1 and not x.isdigit())
    return _Terms(left, right, [*dots, *once])


def _letters(term: str, ndim: int) -> list[str]:
    """Spell the axes of a tensor; those of an ellipsis are numbered from the last."""
    before, ellipsis, after = term.partition("...")
    count = ndim - len(before) - len(after) if ellipsis else 0
    return [*before, *(str(number) for number in reversed(range(count))), *after]
