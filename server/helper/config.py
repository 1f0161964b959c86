"""What the operator of a helper decides, in one file: helper.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from palate.errors import ConfigError
from palate.privacy.aggregators.admission import MAX_REGISTERED
from palate.privacy.aggregators.helper import MOST_WORDS
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.wire import MAX_VALUES
from palate.server.helper.cards import is_address
from palate.server.values import checked_name, read_toml, setting_refused

SUITES = {"x25519": Suite.X25519, "x-wing": Suite.X_WING}


class HelperConfig(BaseModel):
    """Everything that the operator of a helper decides."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fleet: str = Field(description="name of the fleet")
    address: str = Field(description="host:port that the leader connects to, as written in the card")
    bind: str = Field("0.0.0.0", description="address to listen on")
    port: int = Field(9443, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    suite: Literal["x25519", "x-wing"] = Field(
        "x25519", description="how seeds are sealed; x-wing also holds against a quantum computer, 1,088 bytes a report"
    )
    round_key_days: float = Field(
        7.0, gt=0, le=365, description="how long a round's key lasts: no round may take longer"
    )
    most_devices: int = Field(100_000, ge=2, le=MAX_REGISTERED, description="most devices of a register")
    most_words: int = Field(
        MOST_WORDS,
        ge=1,
        le=MAX_VALUES,
        description="most words of a round's vector, items times learned columns: a sum takes 8 bytes a word",
    )
    anchor: str = Field(
        "anchor", description="file that keeps the end of the ledger, best on a medium that no backup restores"
    )

    @field_validator("fleet")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return checked_name(value)

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not is_address(value):
            raise ConfigError(f"{value!r} is not host:port", hint="for example --address helper.example:9443")
        return value

    @property
    def round_key_seconds(self) -> int:
        """How long a round's key lasts."""
        return round(self.round_key_days * 86_400)


def load_config(path: Path) -> HelperConfig:
    """Read helper.toml.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or says something that cannot be used.
    """
    return checked_config(read_toml(path, missing="make a helper with palate helper init"))


def checked_config(asked: dict[str, Any]) -> HelperConfig:
    """Validate values; raises ConfigError in one line that names the bad one."""
    try:
        return HelperConfig.model_validate(asked)
    except ValidationError as error:
        raise setting_refused(error, HelperConfig, hint="helper.toml says what each means") from error


def at_address(address: str) -> dict[str, Any]:
    """Return the settings that follow from an address: itself, and its port to listen on."""
    port = address.rpartition(":")[2]
    return {"address": address} | ({"port": int(port)} if port.isdecimal() else {})


def to_toml(config: HelperConfig) -> str:
    """Write a helper.toml with every setting and what it means."""
    import tomli_w

    lines = ["# What the operator of this helper decides.", ""]
    for name, field in HelperConfig.model_fields.items():
        lines += [f"# {field.description}", tomli_w.dumps({name: getattr(config, name)}).strip()]
    return "\n".join([*lines, ""])
