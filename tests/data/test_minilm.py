"""The forward pass of MiniLM, against PyTorch's own transformer layers with the same weights."""

import numpy as np
import pytest
import torch
from torch import nn

from palate.data.minilm import MAX_TOKENS, WIDTH, MiniLm

LAYERS, VOCABULARY = 6, 50


@pytest.fixture(scope="module")
def encoder() -> nn.TransformerEncoder:
    """Six post-norm layers as BERT has them, with random weights: an implementation that is not ours."""
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(
        WIDTH, 12, 4 * WIDTH, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True, norm_first=False
    )
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval()
    for parameter in encoder.parameters():  # copies of one layer, and biases of zero, would hide a mistake
        nn.init.normal_(parameter, std=0.05)
    return encoder


@pytest.fixture(scope="module")
def weights(encoder) -> dict[str, torch.Tensor]:
    """The same weights under BERT's names."""
    generator = torch.Generator().manual_seed(4)
    made = {
        "embeddings.word_embeddings.weight": torch.randn(VOCABULARY, WIDTH, generator=generator),
        "embeddings.position_embeddings.weight": torch.randn(512, WIDTH, generator=generator),
        "embeddings.token_type_embeddings.weight": torch.randn(2, WIDTH, generator=generator),
        "embeddings.LayerNorm.weight": torch.rand(WIDTH, generator=generator) + 0.5,
        "embeddings.LayerNorm.bias": torch.randn(WIDTH, generator=generator),
        "embeddings.position_ids": torch.arange(512)[None],
    }
    names = {
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
        "self_attn.out_proj": "attention.output.dense",
    }
    for index, layer in enumerate(encoder.layers):
        state, prefix = layer.state_dict(), f"encoder.layer.{index}"
        for kind in ("weight", "bias"):
            joined = state[f"self_attn.in_proj_{kind}"].chunk(3)
            for part, value in zip(("query", "key", "value"), joined, strict=True):
                made[f"{prefix}.attention.self.{part}.{kind}"] = value
            for ours, theirs in names.items():
                made[f"{prefix}.{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    return made


def expected(encoder, weights, ids):
    states = weights["embeddings.word_embeddings.weight"][torch.tensor(ids)]
    states = states + weights["embeddings.position_embeddings.weight"][: len(ids)]
    states = states + weights["embeddings.token_type_embeddings.weight"][0]
    norm = (weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
    states = nn.functional.layer_norm(states, (WIDTH,), *norm, 1e-12)
    with torch.no_grad():
        mean = encoder(states[None])[0].mean(dim=0)
    return (mean / mean.norm()).numpy()


def test_a_sentence_is_what_pytorchs_own_layers_make_of_it(encoder, weights):
    sentences = [[1, 7, 2], [1, 9, 30, 4, 49, 2], [1, 2], [1, 8, 2]]
    found = MiniLm(weights).embed(sentences)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    for row, ids in zip(found, sentences, strict=True):
        np.testing.assert_allclose(row, expected(encoder, weights, ids), atol=2e-5)


def test_a_sentences_vector_does_not_depend_on_the_company_it_keeps(weights):
    model, sentence = MiniLm(weights), [1, 9, 30, 4, 2]
    alone = model.embed([sentence])[0]
    together = model.embed([[1, 2], sentence, [1, 3, 3, 3, 2], [1, 5, 5, 5, 5, 5, 2]])[1]
    np.testing.assert_allclose(together, alone, atol=2e-6)
    assert model.embed([]).shape == (0, WIDTH)


def test_the_order_of_words_matters(weights):
    one, other = MiniLm(weights).embed([[1, 9, 30, 2], [1, 30, 9, 2]])
    assert np.abs(one - other).max() > 1e-5


@pytest.mark.parametrize("length", [0, MAX_TOKENS + 1])
def test_a_sentence_that_the_model_cannot_read_is_refused(weights, length):
    with pytest.raises(ValueError, match=str(length)):
        MiniLm(weights).embed([[1, 2], [1] * length])
