"""Multi-head attention that may have fewer heads than its embedding has room for.

Letters: B batch, L target tokens, S source tokens, N heads, D width of a head, E embedding width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.errors import UsageError

_HARMLESS = frozenset((
    "__annotate__", "__annotate_func__", "__annotations__", "__dict__", "__doc__",
    "__firstlineno__", "__init__", "__module__", "__qualname__", "__static_attributes__",
    "__weakref__",
))  # fmt: skip
"""What a derived class may define and still compute the same."""


class SlimMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose number of heads follows from its weights.

    Same parameters, arguments and results. `nn.MultiheadAttention` reshapes by ``embed_dim`` and so
    cannot run once heads are gone; here a head stays ``embed_dim // num_heads`` wide and the
    projections say how many there are. ``embed_dim`` and ``num_heads`` keep the values the module
    was built with. The fused inference kernels of PyTorch, which assume all heads, are never taken.

    Averaged attention weights are averages over the heads that are left, and a three-dimensional
    ``attn_mask`` has one slice for each of them.

    Example:
        >>> import torch
        >>> attention = SlimMultiheadAttention(embed_dim=8, num_heads=2, batch_first=True)
        >>> x = torch.randn(1, 3, 8)
        >>> attention(x, x, x)[0].shape
        torch.Size([1, 3, 8])
    """

    @classmethod
    def can_adopt(cls, module: nn.MultiheadAttention) -> bool:
        """Tell whether a module computes what `nn.MultiheadAttention` does.

        Args:
            module: The module; its class may add nothing but a constructor.

        Returns:
            Whether `adopt_` takes it.
        """
        added = type(module).__mro__[: type(module).__mro__.index(nn.MultiheadAttention)]
        return isinstance(module, cls) or all(vars(kind).keys() <= _HARMLESS for kind in added)

    @classmethod
    def adopt_(cls, module: nn.MultiheadAttention) -> SlimMultiheadAttention:
        """Turn an attention module into a slim one; the object, its parameters and hooks remain.

        Only the class changes, so giving the module its old class back undoes it.

        Args:
            module: The module; one that is slim already stays as it is.

        Returns:
            ``module``.

        Raises:
            UsageError: The module's class is derived from `nn.MultiheadAttention` and may compute
                something else.
        """
        if not cls.can_adopt(module):
            raise UsageError(
                f"{type(module).__name__} cannot lose heads: expected nn.MultiheadAttention "
                "or a class that adds a constructor to it, since another may compute something "
                "else. "
                "Use nn.MultiheadAttention in the model, or keep this module out of the search."
            )
        if not isinstance(module, cls):
            module.__class__ = cls
        assert isinstance(module, cls)
        return module

    # The encoder layers of PyTorch ask for this before they hand the weights to a fused kernel. A
    # property wins over the entry that the constructor leaves in the instance.
    @property
    def _qkv_same_embed_dim(self) -> bool:
        return False

    @_qkv_same_embed_dim.setter
    def _qkv_same_embed_dim(self, value: bool) -> None:
        self.__dict__["_qkv_same_embed_dim"] = value

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of `nn.MultiheadAttention`.

        Args:
            query: ``[L, E]``, ``[L, B, E]``, or ``[B, L, E]`` with ``batch_first``.
            key: The same with S tokens and ``kdim`` features.
            value: The same with S tokens and ``vdim`` features.
            key_padding_mask: ``[B, S]`` (``[S]`` unbatched), True or -inf where a key is ignored.
            need_weights: Whether the attention weights are returned as well.
            attn_mask: ``[L, S]`` or ``[B * N, L, S]``, True or -inf where attention is barred.
            average_attn_weights: Whether the returned weights are averaged over the heads.
            is_causal: Hint that ``attn_mask`` is the causal mask.

        Returns:
            The output, shaped like ``query``, and the weights ``[B, L, S]`` (``[B, N, L, S]``
            where not averaged) or None.

        Raises:
            UsageError: The input is a nested tensor, or ``is_causal`` comes without ``attn_mask``.
        """
        if query.is_nested:
            raise UsageError(
                "SlimMultiheadAttention got a nested tensor, expected a padded one. "
                "Build nn.TransformerEncoder with enable_nested_tensor=False."
            )
        if is_causal and attn_mask is None:
            raise UsageError(
                "SlimMultiheadAttention got is_causal=True without attn_mask, expected both. "
                "Pass nn.Transformer.generate_square_subsequent_mask(length) as attn_mask."
            )
        batched = query.dim() == 3
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q_BNLD, k_BNSD, v_BNSD = self._heads(query, key, value)
        only_causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if only_causal else self._mask(q_BNLD, attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            score_BNLS = (q_BNLD * math.sqrt(1.0 / self._head_width)) @ k_BNSD.transpose(-2, -1)
            weights = F.softmax(score_BNLS if mask is None else score_BNLS + mask, dim=-1)
            weights = F.dropout(weights, p=dropout) if dropout > 0.0 else weights
            mixed_BNLD = weights @ v_BNSD
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            mixed_BNLD = F.scaled_dot_product_attention(
                q_BNLD,
                k_BNSD,
                v_BNSD,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=only_causal,
                scale=self._head_width**-0.5,
            )
        output = self.out_proj(mixed_BNLD.transpose(1, 2).flatten(2))
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    @property
    def _head_width(self) -> int:
        return int(self.embed_dim // self.num_heads)

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project and split into heads: three tensors ``[B, N, L or S, D]``."""
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            weights = self.in_proj_weight.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], dim=1)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        q, k, v = (x.unflatten(-1, (-1, self._head_width)).transpose(1, 2) for x in (q, k, v))
        return q, k, v

    def _mask(
        self, q_BNLD: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None
    ) -> Tensor | None:
        """Add both masks up, as a tensor that broadcasts to ``[B, N, L, S]``."""
        added = (self.bias_k is not None) + self.add_zero_attn
        mask: Tensor | None = None
        if attn_mask is not None:
            mask = F.pad(_additive(attn_mask, q_BNLD), (0, added))
            if mask.dim() == 3:
                mask = mask.unflatten(0, (len(q_BNLD), -1)) if len(mask) > 1 else mask
        if key_padding_mask is not None:
            padding_BS = F.pad(_additive(key_padding_mask, q_BNLD), (0, added))
            padding = padding_BS[:, None, None, :]
            mask = padding if mask is None else mask + padding
        return mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Turn True into -inf and False into 0; a floating mask is what is added already."""
    if mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
