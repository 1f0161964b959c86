"""MiniLM: six transformer layers that turn a sentence into a vector (Wang et al. 2020; Reimers & Gurevych 2019).

The forward pass of all-MiniLM-L6-v2, and no more: BERT's post-norm layers (Devlin et al. 2019), the mean over tokens,
length one. Fifty lines of torch in place of two frameworks that would look for models on the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn.functional import embedding, gelu, layer_norm, linear, normalize, scaled_dot_product_attention

from palate.models.arrays import Float32Array

WIDTH = 384
"""Length of a sentence's vector."""

MAX_TOKENS = 256
"""Longest sentence that the model was trained to read, start and end markers included; what follows is not read."""

_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12
_TOKENS_PER_BATCH = 2048


class MiniLm:
    """The model with its weights, for inference on the processor.

    Parameters
    ----------
    weights
        Tensors under the names of the published file, such as ``encoder.layer.0.output.dense.weight``; float32. Whoever
        reads that file compares its digest, so names and shapes are not checked again.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = {name: value.detach() for name, value in weights.items() if name != "embeddings.position_ids"}

    def embed(self, tokens: Sequence[Sequence[int]]) -> Float32Array:
        """Turn sentences into vectors of length one.

        Sentences of one length are read together, so that none is padded and a sentence's vector depends on no other's
        (but for the last bits).

        Parameters
        ----------
        tokens
            Ids of each sentence's word pieces, start and end markers included, at least one and at most `MAX_TOKENS`.

        Returns
        -------
        float32 [len(tokens), WIDTH]
        """
        vectors = np.zeros((len(tokens), WIDTH), dtype=np.float32)
        lengths = np.array([len(own) for own in tokens], dtype=np.int64)
        if len(tokens) and not (lengths.min() >= 1 and lengths.max() <= MAX_TOKENS):
            raise ValueError(f"MiniLM: sentences of {lengths.min()} to {lengths.max()} tokens, not 1 to {MAX_TOKENS}")
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            step = max(1, _TOKENS_PER_BATCH // int(length))
            for start in range(0, len(alike), step):
                batch = alike[start : start + step]
                ids = torch.tensor([list(tokens[index]) for index in batch], dtype=torch.int64)
                with torch.inference_mode():
                    vectors[batch] = normalize(self._last_layer(ids).mean(dim=1), dim=1).numpy()
        return vectors

    def _last_layer(self, ids: torch.Tensor) -> torch.Tensor:
        """States of all tokens, [batch, tokens, WIDTH], for ids of that shape without padding."""
        table, length = self._weights, ids.shape[1]
        states = embedding(ids, table["embeddings.word_embeddings.weight"])
        states = states + table["embeddings.position_embeddings.weight"][:length]
        states = self._norm(states + table["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            prefix = f"encoder.layer.{layer}"
            mixed = self._dense(self._attention(states, f"{prefix}.attention.self"), f"{prefix}.attention.output.dense")
            states = self._norm(states + mixed, f"{prefix}.attention.output.LayerNorm")
            inner = gelu(self._dense(states, f"{prefix}.intermediate.dense"))
            states = self._norm(states + self._dense(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
        return states

    def _attention(self, states: torch.Tensor, name: str) -> torch.Tensor:
        batch, length, width = states.shape
        heads = (batch, length, _HEADS, width // _HEADS)
        query, key, value = (
            self._dense(states, f"{name}.{part}").view(heads).transpose(1, 2) for part in ("query", "key", "value")
        )
        return scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, length, width)

    def _dense(self, states: torch.Tensor, name: str) -> torch.Tensor:
        return linear(states, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return layer_norm(states, (WIDTH,), weight, bias, _EPSILON)
