"""Text of the report: numbers as words, and what each metric means."""

from __future__ import annotations

from typing import Any

from palate.server.values import flat

ABSENT = "\N{EN DASH}"
"""Stands where there is no value."""

_NOUNS = {
    "demo": "films",
    "ml-100k": "films",
    "ml-1m": "films",
    "movietweetings-100k": "films",
    "amazon-video": "videos",
    "online-retail": "products",
    "msweb": "areas of the site",
    "gowalla": "places",
}
_SMALL_NUMBERS = {1: "one", 2: "two", 3: "three", 5: "five", 10: "ten", 20: "twenty"}
_KIBI = 1024


def noun(data: str) -> str:
    """Name the items of a dataset, plural: "films" for MovieLens, "items" where nothing is known."""
    return _NOUNS.get(data, "items")


def number_word(number: int) -> str:
    """Small round numbers as words, others as digits."""
    return _SMALL_NUMBERS.get(number, str(number))


def percent(share: float) -> str:
    """Write a share for a sentence: whole per cent, with a decimal where it is small."""
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def score(value: float) -> str:
    """Write a metric in [0, 1] for a table, as in published ones."""
    return f"{value:.3f}"


def signed(value: float, decimals: int = 3) -> str:
    """Write a difference, by default of metrics, with a true minus sign."""
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def metric_name(key: str) -> str:
    """Name a metric as in published tables: "hr@10" is HR@10, "recall@20" is Recall@20."""
    stem, _, cut = key.partition("@")
    shown = stem.upper() if stem in {"hr", "ndcg", "f1", "mrr"} else stem.capitalize()
    return f"{shown}@{cut}" if cut else shown


def p_value(value: float) -> str:
    """Write a p-value with sensible precision."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def data_size(num_bytes: float) -> str:
    """Bytes in a binary unit that keeps the number short."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < _KIBI:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" or num_bytes >= 100 else f"{num_bytes:,.1f} {unit}"
        num_bytes /= _KIBI
    return f"{num_bytes:,.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds in a unit that keeps the number short."""
    if seconds < 1:
        return f"{seconds * 1000:,.0f} ms"
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.1f} min"


def flattened(config: dict[str, Any]) -> dict[str, str]:
    """Nested configuration as dotted names and text values, in the order of the file."""
    values = flat(config).items()
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in values}


def recency_note(config: dict[str, Any], *, has_time: bool) -> str:
    """Say whether the run's model weights interactions by age, which matters in comparisons with baselines.

    Parameters
    ----------
    config
        The run's configuration.
    has_time
        Whether the order of a history is known; if not, nothing is recent.
    """
    training = config.get("training")
    half_life = training.get("recency_half_life") if isinstance(training, dict) else None
    if half_life == float("inf") or not has_time:
        return "Like the references, Palate's model ignored the order of a history in this run."
    how = f" (an interaction counts half after {half_life:g} newer ones)" if isinstance(half_life, int | float) else ""
    return (
        f"Palate's model may use the order of a history{how}; so do the references whose names end in \u201cby "
        "recency\u201d, and counts of transitions."
    )


def definitions(k: int, items: str) -> dict[str, str]:
    """Return what every metric of the report means, by name.

    Parameters
    ----------
    k
        Cut-off.
    items
        What the items are called, plural.
    """
    return {
        f"HR@{k} (hit rate)": (
            f"How often the one held-out item is among the first {number_word(k)}. With a single held-out item, "
            f"recall@{k} is the same number."
        ),
        f"NDCG@{k}": (
            "A hit counts more near the top: 1 for first place, 0.63 for second, 0.5 for third, 0 beyond the list."
        ),
        f"Recall@{2 * k}": f"The hit rate of a list twice as long, {number_word(2 * k)} {items}.",
        f"Precision@{k}, F1@{k}": (
            f"Share of the list that is right, and its harmonic mean with recall. Only one item can be right, so "
            f"precision is at most {1 / k:g} and F1 at most {2 / (k + 1):.3f}."
        ),
        "MRR": "Mean of 1 / position of the held-out item, over the whole ranking.",
        "Sampled candidates, whole catalogue": (
            f"Sampled: the held-out item against a fixed draw of {items} that the person never had, as published "
            f"tables do. Whole catalogue: against all {items} that the person has not had yet, which is what a "
            f"person would see. Sampled numbers look better and can even order models differently."
        ),
        "Coverage": "Share of the catalogue that is recommended to somebody.",
        "Gini": "How unequally recommendations are spread over the catalogue: 0 is equal, 1 is one item.",
        "Novelty": "How rare the recommendations are, in bits; one more bit is half as many people.",
        "Diversity": "How different the items of one list are by their public description: 0 is all alike.",
        "95% interval": (
            "Where the number would be for other people of the same kind. It says nothing about other seeds of "
            "training, or other data."
        ),
    }
