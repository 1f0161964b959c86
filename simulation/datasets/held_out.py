"""Leave-one-out: what is trained on, and the held-out item of each user (He et al. 2017, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from palate.models.arrays import Int32Array
from palate.models.histories import Histories


@dataclass(frozen=True)
class HeldOut:
    """One held-out item per user and its fixed negatives.

    Attributes
    ----------
    item
        The item to be found, int32 [num_users]; -1 where the user has too short a history.
    negatives
        Items it is ranked against in the sampled protocol, int32 [num_users, num_negatives].
    """

    item: Int32Array
    negatives: Int32Array


@dataclass(frozen=True)
class Split:
    """Leave-one-out: newest interaction is the test item, second-newest validation, the rest is training.

    A user with two interactions has a test item but no validation item; with one, training only.
    Each round trains on `train`. Validation ranks with `train` as the history; test ranks with
    `train` plus the validation item, as a device that has lived until then would.
    """

    train: Histories
    validation: HeldOut
    test: HeldOut
    num_items: int

    @property
    def full_train(self) -> Histories:
        """Everything before the test item: training plus validation."""
        return self.train.append(self.validation.item)
