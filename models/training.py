"""Parameters of local training: public, part of every round's plan, the same for all devices."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LocalTraining(BaseModel):
    """What a device does with its own history in a round.

    `objective` is "whole" (closed-form ridge over the whole catalogue; a non-linear head is then trained on what
    the ridge leaves over) or "bce" (SGD on positives and sampled negatives, as in NCF and PFedRec).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")

    model: str = Field("neumf", description="score model: gmf, mlp, neumf, linear, autoencoder or sequential")
    objective: Literal["whole", "bce"] = Field(
        "whole", description="local loss: whole (whole catalogue, closed form) or bce (sampled negatives)"
    )
    hidden: int = Field(16, ge=1, le=1024, description="width of the MLP head's hidden layer")
    unobserved_weight: float = Field(0.1, gt=0, le=1, description="weight a0 of every catalogue item as a negative")
    regularisation: float = Field(30.0, gt=0, description="ridge on the user vector")
    recency_half_life: float = Field(
        10.0, gt=0, allow_inf_nan=True, description="interactions until an old one counts half; inf is off"
    )
    serving_half_life: float | None = Field(
        None, gt=0, allow_inf_nan=True, description="the same when recommending; as in training unless given"
    )
    forgetting: Literal["exponential", "hyperbolic"] = Field(
        "exponential",
        description="how weights fall with age: by recency_half_life and recency_floor, or as 1/(1 + age)",
    )
    serving_forgetting: Literal["exponential", "hyperbolic"] | None = Field(
        None,
        exclude_if=lambda value: value is None,  # plans without it keep their bytes, and so their hashes
        description="the same when recommending; as the score model has it unless given",
    )
    recency_floor: float = Field(0.05, ge=0, le=1, description="what the oldest interaction still counts")
    user_weight_exponent: float = Field(0.5, ge=0, le=1, description="scale a person's update by n_u ** -exponent")
    least_interactions: int = Field(
        1, ge=1, description="a shorter history adds nothing to a round's update; its device still adds its noise"
    )
    leave_one_out: bool = Field(
        False, description="pull an item towards the user vector fitted without it (objective whole)"
    )
    own_items_only: bool = Field(
        False,
        exclude_if=lambda value: not value,  # plans without it keep their bytes, and so their hashes
        description="the update has values only on the person's own items; unit user, whose noise covers every row",
    )
    epochs: int = Field(1, ge=1, le=1000, description="local SGD epochs per round")
    batch_size: int = Field(256, ge=1, description="positives per local SGD step")
    negatives: int = Field(4, ge=1, le=1000, description="sampled negatives per positive (objective bce)")
    head_negatives: int = Field(1, ge=1, le=1000, description="the same for a head on top of the closed form")
    learning_rate: float = Field(0.5, gt=0, description="local SGD step of the user vector and head (objective bce)")
    head_learning_rate: float = Field(0.1, gt=0, description="the same for a head on top of the closed form")
    item_learning_rate: float = Field(1.0, gt=0, description="local SGD step of the item rows (objective bce)")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the user vector and head in local SGD")

    @property
    def sampled_negatives(self) -> int:
        """Sampled negatives per positive under this objective."""
        return self.negatives if self.objective == "bce" else self.head_negatives

    @property
    def sgd_learning_rate(self) -> float:
        """Step of the user vector and head under this objective."""
        return self.learning_rate if self.objective == "bce" else self.head_learning_rate
