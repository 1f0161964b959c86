"""A fleet at a glance, for people and for programs: what its files say, whether a server runs or not."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from palate.privacy.colluding import colluding_words, if_colluding
from palate.server.fleet.certificates import last_moment
from palate.server.fleet.claims import claim_of, planned_sums, words_of
from palate.server.fleet.config import load_config
from palate.server.fleet.dropouts import counted
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.losses import Losses
from palate.server.fleet.progress import bytes_per_device
from palate.server.fleet.registering import revoked_in
from palate.server.fleet.setup import tls_server
from palate.server.fleet.spool import reports_in, spool_name
from palate.server.fleet.state import FleetState, Round, RoundStatus
from palate.server.fleet.transport.enrolment import EnrolledNode, Enrolment


def status_of(folder: FleetFolder) -> dict[str, Any]:
    """Describe a fleet as JSON values.

    Raises
    ------
    ConfigError, RunError
        If it is not the folder of a fleet, or is damaged.
    """
    folder.require()
    config = load_config(folder.config)
    state = FleetState(folder.state)
    try:
        rounds, stop, unfinished = state.rounds(config.run), state.stop_requested(), state.unfinished()
        life = max((each.life_epsilon for each in state.rounds()), default=0.0)
        losses = Losses.found(state, config.halt_after)
        keys_revoked, (_, at_helper) = len(revoked_in(state)), state.revocation() or (b"", True)
        step, answers = "", 0
        if unfinished is not None:
            step, answers = _progress(folder, state, unfinished)
    finally:
        state.close()
    devices, claim = _devices(folder), claim_of(folder, config)
    enrolled = sum(node.removed_at is None for node in devices)
    colluding = if_colluding(planned_sums(config, enrolled), config.delta)
    applied = [each for each in rounds if each.status in (RoundStatus.APPLIED, RoundStatus.DONE)]
    return {
        "fleet": config.name,
        "run": config.run,
        "address": config.listen.address,
        "running": folder.is_locked(),
        "stop_requested": None if stop is None else str(stop),
        "devices_enrolled": enrolled,
        "devices_removed": sum(node.removed_at is not None for node in devices),
        "devices_planned": config.cohort.devices,
        "keys_revoked": keys_revoked,
        "revocation_at_helper": at_helper,
        "rounds_applied": len(applied),
        "rounds_planned": 1 + config.schedule.rounds,
        "rounds_abandoned": sum(each.status is RoundStatus.ABANDONED for each in rounds),
        **losses.to_json(),
        "open_round": None
        if unfinished is None
        else {
            "round": unfinished.number,
            "purpose": unfinished.purpose,
            "asked": unfinished.roster_size,
            "step": step,
            "answers": answers,
        },
        "epsilon_spent": max((each.epsilon for each in rounds), default=0.0),
        "epsilon_budget": config.epsilon,
        "epsilon_spent_in_all_runs": life,
        **config.promise.reading,
        "tls_ends": last_moment(tls_server(folder).certificate).isoformat(),
        "helper": config.helper.there,
        "guarantee": {"against": claim.against, "meaning": claim.meaning},
        "words": words_of(folder, config),
        "if_colluding": [each.to_json() for each in colluding],
        "if_colluding_in_words": colluding_words(colluding, config.delta, of="the enrolled devices"),
        "table": applied[-1].table_hash if applied else None,
    }


def _progress(folder: FleetFolder, state: FleetState, unfinished: Round) -> tuple[str, int]:
    """Name the open step of a round, and count the answers to it."""
    collection = state.collection(unfinished.number)
    if collection is None:
        asked, answers = state.progress(unfinished.number)
        return str(asked), answers
    step = "report" if collection.request is None else "helper" if collection.answer is None else "receipt"
    return step, reports_in(folder.spools / spool_name(unfinished.number))


def devices_of(folder: FleetFolder) -> list[dict[str, Any]]:
    """Describe every device that is or was enrolled as JSON values, with the lost rounds that it was named in.

    Raises as `status_of`.
    """
    folder.require()
    state = FleetState(folder.state)
    try:
        named = [(each.named, each.number) for each in state.rounds() if each.named]
    finally:
        state.close()
    return [
        {
            "device": node.label,
            "enrolled_at": node.enrolled_at,
            "removed_at": node.removed_at,
            "named_in": [number for device, number in named if device == node.label],
        }
        for node in sorted(_devices(folder), key=lambda node: node.removed_at or 0.0)
    ]


def _devices(folder: FleetFolder) -> tuple[EnrolledNode, ...]:
    with closing(Enrolment(folder.enrolment)) as enrolment:
        return enrolment.all()


def rounds_of(folder: FleetFolder) -> list[dict[str, Any]]:
    """Describe every round as JSON values; raises as `status_of`."""
    folder.require()
    reading = load_config(folder.config).promise.reading
    state = FleetState(folder.state)
    try:
        return [_round(each, state) | reading for each in state.rounds()]
    finally:
        state.close()


def _round(each: Round, state: FleetState) -> dict[str, Any]:
    members = state.members(each.number)
    up, down = bytes_per_device(members)
    return {
        "round": each.number,
        "run": each.run,
        "purpose": each.purpose,
        "status": str(each.status),
        "reason": each.reason,
        "lost_in": each.lost_in or None,
        "named": each.named or None,
        "asked": each.roster_size,
        "roster": each.advertised,
        "survivors": each.survivors,
        "failed": sum(member.failure != 0 for member in members),
        "why_failed": counted(member.failure for member in members),
        "bytes_up_per_device": round(up),
        "bytes_down_per_device": round(down),
        "epsilon_spent": each.epsilon,
        "epsilon_spent_in_all_runs": each.life_epsilon,
        "seconds": None if each.ended_at is None else each.ended_at - each.started_at,
        "started_at": each.started_at,
        "table": each.table_hash or None,
        "log_index": each.log_index,
    }
