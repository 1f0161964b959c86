"""The fleet's next run, as a device meets it: the server's signed notice, and the catalogue that it names.

The notice changes nothing that the device trusts, and none of its owner's limits: it says what the run plans to spend
and over which items. What exceeds the limits is refused round by round, as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from palate.client.fleet.folder import NEW_WELCOME, DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.vault import Vault
from palate.data.catalogue import Catalogue
from palate.errors import DataError
from palate.privacy import files
from palate.privacy.enrolment import MAX_CATALOGUE_BYTES, EnrolmentFileRefused
from palate.privacy.run_notice import CATALOGUE_PATH, MAX_NOTICE_BYTES, RUN_PATH, RunNotice

log = logging.getLogger(__name__)


def meet_run(
    folder: DeviceFolder, vault: Vault, keys: DeviceKeys, profile: FleetProfile, address: str, run: str | None = None
) -> FleetProfile | None:
    """Fetch the notice of the current run, and its catalogue where that has changed.

    Parameters
    ----------
    folder, vault, keys, profile
        The device's.
    address
        The server's, "host:port".
    run
        The run that is asked for; whatever runs now unless given.

    Returns
    -------
    FleetProfile or None
        The profile in that run, which is kept; None where the server gives no notice, or another run's.
    """
    from palate.client.fleet.transport.link import FleetError, Link  # Flower is not needed, HTTP is

    try:
        with Link(address, keys.node, authority=folder.authority) as link:
            data = link.call(RUN_PATH, b"", max_bytes=MAX_NOTICE_BYTES)
            notice = RunNotice.open(data, profile.server_key)
            if run is not None and notice.run != run:
                raise EnrolmentFileRefused(f"the notice is of run {notice.run}, and {run} asks for a report")
            return take_in(
                folder, vault, profile, notice, lambda: link.call(CATALOGUE_PATH, b"", max_bytes=MAX_CATALOGUE_BYTES)
            )
    except (FleetError, EnrolmentFileRefused, DataError) as error:
        log.warning("there is no notice of a next run: %s", error.message)
        return None


def take_in(
    folder: DeviceFolder, vault: Vault, profile: FleetProfile, notice: RunNotice, fetch: Callable[[], bytes]
) -> FleetProfile:
    """Take in a notice that the server has signed; return the profile in its run.

    The profile is kept first. A device that dies before the catalogue is in place fetches it when it starts again.

    Parameters
    ----------
    folder, vault, profile
        The device's.
    notice
        Of the current run.
    fetch
        Returns the run's catalogue.

    Raises
    ------
    EnrolmentFileRefused
        If it is of another fleet, of a run that was over before, or the catalogue is another than it says.
    DataError
        If the catalogue cannot be read.
    """
    known = profile.notice
    if known != notice and notice.run in RoundLog(vault).standing().finished:
        raise EnrolmentFileRefused(f"the notice is of run {notice.run}, which is over", hint="do not trust this server")
    welcome = notice.applied_to(profile.welcome)
    on_disk = sha256(folder.catalogue.read_bytes()).hexdigest() if folder.catalogue.is_file() else ""
    catalogue = None
    if on_disk != notice.catalogue_sha256:
        catalogue = fetch()
        if sha256(catalogue).hexdigest() != notice.catalogue_sha256:
            raise EnrolmentFileRefused("the catalogue is not the one that the notice names", hint=NEW_WELCOME)
        Catalogue.from_parquet(catalogue, num_items=welcome.num_items, hint=NEW_WELCOME)
    profile = replace(profile, welcome=welcome, notice=notice)
    profile.save(vault)
    if catalogue is not None:
        folder.table.unlink(missing_ok=True)  # its rows are other items; the run's first round brings the next one
        files.replace(folder.catalogue, catalogue)
    if known is not None and known.run != notice.run:
        log.info("run %s follows run %s", notice.run, known.run)
    return profile
