"""What an import would do, in lines for the owner."""

from __future__ import annotations

from typing import Final

from palate.client.fleet.importing import Found, ImportPlan

_WORDS: Final[dict[Found, str]] = {"exact": "in the catalogue", "likely": "likely", "unknown": "not in it"}


def import_lines(plan: ImportPlan, *, has_catalogue: bool) -> list[str]:
    """Say what was read, what of it the catalogue has, what is left out, and what will change.

    Parameters
    ----------
    plan
        What the import would do.
    has_catalogue
        Whether there is a catalogue; without one nothing is known yet.
    """
    lines = [f"{name}: {export}" if export else f"{name}: a table" for name, export in plan.files.items()]
    if plan.columns:
        lines.append(f"columns read: {', '.join(f'{name} as {role}' for role, name in plan.columns.items())}")
    if plan.passed_over:
        lines.append(f"columns passed over: {', '.join(plan.passed_over)}")
    if plan.not_read:
        lines.append(f"files passed over: {', '.join(plan.not_read[:5])}{_more(len(plan.not_read) - 5)}")
    items = plan.exact + plan.likely + plan.unknown
    lines.append(f"{_counted(plan.rows, 'row')} about {_counted(items, 'item')}")
    if has_catalogue:
        lines += _matches(plan)
    else:
        lines.append("this device belongs to no fleet yet: items are matched once there is a catalogue")
    lines += [f"left out: {_counted(count, 'row')}, {reason}" for reason, count in plan.left_out.items()]
    if plan.dropped:
        lines.append(f"rows passed over: {plan.dropped}")
        lines += [f"  {reason}" for reason in plan.reasons]
        if plan.dropped > len(plan.reasons):
            lines.append(f"  and {plan.dropped - len(plan.reasons)} more")
    lines.append(f"{plan.added:,} new, {plan.changed:,} changed, {plan.unchanged:,} as they were")
    return lines


def _matches(plan: ImportPlan) -> list[str]:
    """Say how many items are known, with a few of each kind."""
    lines = []
    counts: dict[Found, int] = {"exact": plan.exact, "likely": plan.likely, "unknown": plan.unknown}
    for kind, count in counts.items():
        if not count:
            continue
        kept = "; kept, and looked for again in a later one" if kind == "unknown" else ""
        lines.append(f"  {count:,} {_WORDS[kind]}{kept}")
        for written, listed in plan.examples[kind]:
            lines.append(f"    {written}" + (f"  is  {listed}" if listed and listed != written else ""))
        if count > len(plan.examples[kind]):
            lines.append(f"    and {count - len(plan.examples[kind]):,} more")
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""
