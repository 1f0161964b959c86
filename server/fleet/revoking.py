"""Which keys are out of a fleet with a helper: kept here until the helper has the list; it counts at its next answer.

Where leader and helper admit devices together, the leader signs a revocation first and the helper adds its signature
when it is brought there. Where a third party admits, it has signed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from palate.errors import ConfigError
from palate.privacy.aggregators.admission import Certificate, Parties, Revocation, key_number
from palate.server.fleet.certifying import with_keys_out
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import FleetConfig, load_config
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.registering import newest_revocation
from palate.server.fleet.removal import Removal, remove
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.enrolment import Enrolment


def revoke(folder: FleetFolder, devices: Sequence[str]) -> Removal:
    """Take devices out and revoke their keys, as the leader; works while the server runs.

    The helper leaves out what such a key signed from its next answer on, also in the round that is open.

    Parameters
    ----------
    folder
        The fleet's.
    devices
        Names, as `palate server devices` lists them.

    Raises
    ------
    ConfigError
        If a third party admits devices, the fleet has no helper, or one of the names is nobody's; nothing is done then.
    RunError, EnvironmentProblem
        If the fleet's files are damaged, or the disk is full.
    """
    folder.require()
    config, names = load_config(folder.config), {each.strip().lower() for each in devices}
    if not config.helper.there:
        raise ConfigError("devices of this fleet have no helper that would refuse a key", hint="palate server remove")
    if parties_of(folder, config).authority is not None:
        raise ConfigError(
            "a third party admits devices to this fleet, and revokes their keys",
            hint="palate server waiting -o FILE; there: palate authority revoke DEVICE --known FILE --key KEY",
        )
    with closing(Enrolment(folder.enrolment)) as enrolment:
        nodes = [node for node in enrolment.all() if node.label in names]
    if names <= {node.label for node in nodes}:  # else `remove` says which name is nobody's
        revoke_keys(folder, config, [node.certificate for node in nodes])
    return remove(folder, devices)


def revoke_keys(folder: FleetFolder, config: FleetConfig, certificates: Sequence[bytes]) -> None:
    """Sign, as the leader, that the keys of these certificates are out."""
    keys = [Certificate.from_bytes(each).identity_key for each in certificates]
    with closing(FleetState(folder.state)) as state:
        newest = newest_revocation(state)
        if newest is None or not {*map(key_number, keys)} <= {*newest.keys}:
            signed = with_keys_out(newest, config.name, keys).signed(read_key(folder.server_key))
            state.keep_revocation(signed.to_bytes())


def keep_revocation(state: FleetState, revocation: Revocation, parties: Parties) -> None:
    """Check a revocation of a third party, and keep it; the same again changes nothing.

    Raises
    ------
    RegisterRefused
        If a signature is wrong, it is not newer, or it takes a revoked key back.
    """
    revocation.verify(parties)
    newest = newest_revocation(state)
    revocation.check_after(newest)
    if newest is None or newest.body != revocation.body:
        state.keep_revocation(revocation.to_bytes())
