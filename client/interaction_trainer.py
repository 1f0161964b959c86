"""Local training at unit "interaction" and "both": one noised step over the device's most recent interactions.

A round is one full-batch step of DP-SGD (Abadi et al. 2016) on NCF's loss (He et al. 2017, eq. 7). Everything that is
trained is noised, the head on the device included: so whatever leaves in later rounds is a function of what was noised
before, and rounds compose. A sample depends on its own interaction, its negatives, the public table and the noised
head; never on how many interactions there are, or which.

Gradients are computed in float64: then the integers do not depend on the order of sums, and the vectorised
federation (`palate.client.batched_interaction`) sends the same ones. Nor can a finite head and table overflow.

What recommends is another model: a personal copy without noise (`serve_scores`), from which nothing is ever sent.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from torch.nn import functional

from palate.client.interaction_optimizer import InteractionOptimizer
from palate.client.trainer import LocalModel, score_catalogue
from palate.errors import ConfigError
from palate.models.arrays import BoolArray, Float32Array, Int32Array, Int64Array, UInt64Array
from palate.models.sampling import draw_items, stream
from palate.models.scores.base import Shape, State
from palate.models.scores.modules import build
from palate.models.scores.registry import head_size
from palate.models.serving import serving_training
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.integer.skellam import SkellamSampler
from palate.privacy.mechanisms.interaction import SampleLayout, popularity_integers, require_interactions, sum_items
from palate.privacy.mechanisms.terms import ReleaseTerms

_NEGATIVES = 1  # purpose of the stream, as in palate.models.sampling.epoch_samples

# An embedding's input is an index and has no gradient; Opacus needs only that of its output.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


@dataclass(frozen=True)
class InteractionRelease:
    """What a round leaves behind; nothing of it is ever printed.

    Attributes
    ----------
    vector
        What may leave: noised integers in the ring, dimension by dimension, [dim * num_items].
    state
        The noised head; stays on the device.
    """

    vector: RingArray = field(repr=False)
    state: State = field(repr=False)


@dataclass(frozen=True, eq=False)
class Samples:
    """Interactions with their negatives.

    Attributes
    ----------
    items
        The positive, then its negatives, int32 [N, 1 + k].
    real
        Which of them count: an item that its sample already has does not, bool [N, 1 + k].
    """

    items: Int32Array
    real: BoolArray


def sample_layout(config: LocalTraining, *, fixed_dim: int, dim: int) -> SampleLayout:
    """Return the sizes of a sample under a plan.

    Raises
    ------
    ConfigError
        If the objective is not "bce", or cannot train the model: the closed form is no sum over interactions.
    """
    if config.objective != "bce":
        raise ConfigError(
            f"objective {config.objective!r} cannot protect single interactions",
            hint="use --objective bce, or unit user",
        )
    shape = Shape(fixed_dim=fixed_dim, dim=dim, hidden=config.hidden)
    head = head_size(config.model, config.objective, shape)
    return SampleLayout(head_size=head, slots=1 + config.negatives, dim=dim)


def interaction_samples(keys: UInt64Array, positives: Int32Array, *, negatives: int, num_items: int) -> Samples:
    """Draw negatives for interactions, from the whole public catalogue.

    Counters are items and not positions, so the negatives of an interaction do not change when another one goes.

    Parameters
    ----------
    keys
        Sampling key of each interaction's device, uint64 [N] or [1].
    positives
        Items of the interactions, int32 [N].
    negatives
        k, per interaction.
    num_items
        Size of the catalogue.
    """
    counters = positives.astype(np.int64)[:, None] * negatives + np.arange(negatives)  # [N, k]
    drawn = draw_items(stream(keys, _NEGATIVES)[:, None], counters, num_items)
    items = np.concatenate([positives[:, None].astype(np.int32), drawn], axis=1)
    order = np.argsort(items, axis=1, kind="stable")  # of equal items the earliest slot comes first
    ordered = np.take_along_axis(items, order, axis=1)
    real = np.ones(items.shape, dtype=np.bool_)
    np.put_along_axis(real, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    return Samples(items, real)


def require_finite_heads(state: State) -> None:
    """Raise PrivacyError if a head has left the finite numbers; heads are noised, so the refusal tells nothing more."""
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise PrivacyError(f"the head's {name} is not finite", hint="lower the learning rate; nothing has left")


def train_interactions(
    table: ItemTable,
    items: Int32Array,
    state: State | None,
    config: LocalTraining,
    terms: ReleaseTerms,
    *,
    interactions_per_round: int,
    key: np.uint64,
    secret: bytes,
) -> InteractionRelease:
    """Run one round of local training; a device without interactions releases noise like any other.

    Of the configuration only the model, its width, `negatives`, `learning_rate` and `weight_decay` are used: weights
    by age or by length of the history would make a sample depend on others.

    Parameters
    ----------
    table
        The round's item table.
    items
        The device's history without repeats, oldest first, int32 [n].
    state
        The noised head as the last round left it, or None for the public starting point.
    config
        Public parameters of local training, with objective "bce".
    terms
        Clip norm C and sensitivity S of one interaction, and the device's share of noise.
    interactions_per_round
        B: so many of the most recent interactions take part; also the divisor of the head's step.
    key
        The device's fresh 64-bit key, which draws its negatives.
    secret
        The device's fresh 32 secret bytes, for roundings and noise.

    Raises
    ------
    ConfigError
        If the objective is not "bce".
    PrivacyError
        If the head or a gradient is not finite, or a number is out of range; then nothing may leave.
    """
    require_interactions(interactions_per_round)
    layout = sample_layout(config, fixed_dim=table.fixed_dim, dim=table.dim)
    head = build(config.model, config.objective, Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=config.hidden))
    if state is not None:
        require_finite_heads(state)
        head.load_state_dict(state)
    samples = interaction_samples(
        np.full(1, key, dtype=np.uint64),
        items[-interactions_per_round:],
        negatives=config.negatives,
        num_items=table.num_items,
    )
    touched, slots = np.unique(samples.items, return_inverse=True)
    slots = slots.reshape(samples.items.shape)
    # Opacus keeps a gradient of every row for every sample: only rows that are touched, and not the catalogue's
    local = LocalModel(ItemTable(table.fixed[touched], table.learned[touched]), head).double()
    model = GradSampleModule(local, loss_reduction="sum")
    noise = WordStream(secret, Purpose.NOISE)
    optimiser = InteractionOptimizer(
        torch.optim.SGD(
            [
                {"params": list(head.parameters()), "lr": config.learning_rate, "weight_decay": config.weight_decay},
                {"params": [local.item.weight], "lr": 0.0},
            ]
        ),
        slots=slots,
        real=samples.real,
        layout=layout,
        terms=terms,
        interactions_per_round=interactions_per_round,
        secret=secret,
        noise=noise,
    )
    scores = model(torch.from_numpy(slots))  # [N, 1 + k]
    target = torch.zeros_like(scores)
    target[:, 0] = 1.0
    each = functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
    (each * torch.from_numpy(samples.real)).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    summed = sum_items(layout.item_part(optimiser.integers), samples.items, table.num_items)
    noised = summed + SkellamSampler(terms.share_variance).draw(len(summed), noise)
    trained = {name: value.detach().float().clone() for name, value in head.state_dict().items()}
    return InteractionRelease(Ring(bits=terms.ring_bits).reduce(noised), trained)


def popularity_interactions(
    items: Int32Array, num_items: int, terms: ReleaseTerms, *, interactions_per_round: int, secret: bytes
) -> RingArray:
    """Return a device's part of the popularity sum: its B most recent interactions, each C on its item, and noise.

    Ring elements [num_items], in steps of `palate.privacy.mechanisms.interaction.popularity_scale`.
    """
    require_interactions(interactions_per_round)
    counts = popularity_integers(items[-interactions_per_round:], num_items, terms)
    noised: Int64Array = counts + SkellamSampler(terms.share_variance).draw(
        num_items, WordStream(secret, Purpose.NOISE)
    )
    return Ring(bits=terms.ring_bits).reduce(noised)


def serve_scores(table: ItemTable, items: Int32Array, config: LocalTraining) -> Float32Array:
    """Score all items for the person who holds the device, float32 [num_items].

    The copy is fitted afresh to the whole history and the public table. It owes nothing to the noised head, and
    nothing that is ever sent may be computed from it.
    """
    return score_catalogue(table, items, None, serving_training(config, noised_head=True))
