"""Multi-head attention whose inner width need not equal the width of the stream.

Letters: B batch, L target and S source positions, E stream width, N heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import UsageError


class SlimMultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` that reads the number of heads from its weights.

    Same parameters and arguments. The width of a head stays what it was built with, so that heads
    can be removed by cutting rows of the input and columns of the output projection.
    """

    @classmethod
    def adopt_(cls, module: nn.MultiheadAttention) -> SlimMultiheadAttention:
        """Turn an attention module into a slim one in place.

        Args:
            module: A plain `torch.nn.MultiheadAttention`; the object, its parameters and hooks stay.

        Returns:
            The same object.

        Raises:
            UsageError: The module appends learned or zero keys, which belong to no head's rows.
        """
        if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
            raise UsageError(
                "MultiheadAttention with add_bias_kv or add_zero_attn cannot lose heads: its extra "
                "key belongs to all of them. Build it without these options, or keep it whole."
            )
        object.__setattr__(module, "__class__", cls)
        assert isinstance(module, cls)
        return module

    def forward(  # type: ignore[override]
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
        """Attend; see `torch.nn.MultiheadAttention.forward`.

        Args:
            query: ``[B, L, E]`` (batch first), ``[L, B, E]`` or unbatched ``[L, E]``.
            key: As ``query`` with S positions.
            value: As ``key``.
            key_padding_mask: True (or -inf) where a source position is to be ignored, ``[B, S]``.
            need_weights: Whether to return attention weights.
            attn_mask: ``[L, S]`` or ``[B * N, L, S]``; the latter must match the live heads.
            average_attn_weights: Whether to average the weights over heads.
            is_causal: Hint that ``attn_mask`` is the causal mask.

        Returns:
            The output, laid out as ``query``, and the weights or None.
        """
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._split(x) for x in self._project(query, key, value))
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        scale = self.head_dim**-0.5
        weights = None
        if need_weights:
            scores = (q * scale) @ k.transpose(-2, -1)
            scores = scores if mask is None else scores + mask
            weights = F.dropout(torch.softmax(scores, dim=-1), dropout, self.training)
            mixed = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale
            )
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if self._qkv_same_embed_dim:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases: Any = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = (query, key, value)
        return tuple(F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))

    def _split(self, x: Tensor) -> Tensor:
        """Turn ``[B, L, N * D]`` into ``[B, N, L, D]``."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    @staticmethod
    def _mask(
        q: Tensor, k: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """Merge both masks into one that is added to the scores."""
        mask = None
        if attn_mask is not None:
            mask = _additive(attn_mask, q)
            if mask.dim() == 3:
                mask = mask.reshape(q.shape[0], -1, q.shape[2], k.shape[2])
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        return mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
