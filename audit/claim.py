"""What a run says about itself in result.json: the claims that its ledgers must support."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from palate.audit.opening import Source
from palate.simulation.report.files import file_record, is_file
from palate.simulation.run_folder import RESOLVED, read_config

RESULT = "result.json"
_SEEDED = "The noise of this run is made from its seed: whoever knows the seed can subtract it."


class _Strict(BaseModel):
    """Takes no text or truth value for a number, and no infinity."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Claim(_Strict):
    """A run's own statement about one unit.

    Attributes
    ----------
    epsilon, delta
        What it says was spent.
    target_epsilon
        The epsilon that it was asked to keep; None where it does not say.
    """

    epsilon: float
    delta: float
    target_epsilon: float | None = None


class _UnitClaim(Claim):
    unit: str
    further: list[_UnitClaim] = []


class _Result(_Strict):
    guarantee: _UnitClaim | None
    protection: str


def read_claims(source: Source) -> tuple[dict[str, Claim], str]:
    """Read what a run claims, by unit, and why it protects nobody in spite of that ("" if nothing says so).

    An experiment may make its noise from the seed: the record is then right about how wide the noise was, and wrong
    about who can subtract it. A run that has not finished claims nothing.

    Raises
    ------
    RunError
        If result.json or resolved.toml is damaged.
    """
    if source.run is None:
        return {}, ""
    if is_file(source.run / RESULT):
        result = file_record(source.run, RESULT, _Result)
        if result.guarantee is None:
            return {}, f"The run itself claims nothing: {result.protection}."
        # One release may protect two units.
        return {claim.unit: claim for claim in (result.guarantee, *result.guarantee.further)}, ""
    if is_file(source.run / RESOLVED):
        return {}, _SEEDED if read_config(source.run, RESOLVED).privacy.noise == "seeded" else ""
    return {}, ""
