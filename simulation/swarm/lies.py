"""Reports that a lying device sends in place of its honest one: each well-formed, and wrong in one way."""

from __future__ import annotations

import secrets
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.aggregators.call import CollectionCall
from palate.privacy.aggregators.messages import SALT_SIZE, Report, Upload, tag_of
from palate.privacy.aggregators.sealing import RoundKey
from palate.privacy.secagg.encoding import HASH_SIZE, to_sign
from palate.simulation.swarm.faults import Lie


def forged(honest: bytes, lie: Lie, *, call: bytes, identity: Ed25519PrivateKey, before: bytes | None) -> bytes | None:
    """Return what a liar sends.

    Parameters
    ----------
    honest
        Its report, as `palate.privacy.aggregators.device.make_report` made it.
    lie
        What is wrong with it.
    call
        What the leader sent.
    identity
        The device's signing key.
    before
        Its report of the round before.

    Returns
    -------
    bytes or None
        The lie; None where a replay has nothing to replay yet.
    """
    if lie is Lie.REPLAY:
        return before
    suite = RoundKey.from_bytes(CollectionCall.from_bytes(call).round_key).key.suite
    upload = Upload.from_bytes(honest, suite)
    report, key = upload.report, identity
    match lie:
        case Lie.BAD_CERTIFICATE:
            key = Ed25519PrivateKey.generate()  # no certificate names it
        case Lie.WRONG_CONTEXT:
            report = replace(report, context=secrets.token_bytes(HASH_SIZE))
        case Lie.UNSEALABLE:
            report = replace(report, sealed=secrets.token_bytes(len(report.sealed)))
        case Lie.TWO_REPORTS:  # the same words under another salt: other bytes, rightly signed
            salt = secrets.token_bytes(SALT_SIZE)
            tag = tag_of(report.context, report.device, salt, upload.words)
            upload, report = replace(upload, salt=salt), replace(report, tag=tag)
    return replace(upload, report=_signed(report, key)).to_bytes()


def _signed(report: Report, key: Ed25519PrivateKey) -> Report:
    return report.signed(lambda body: key.sign(to_sign(body)))
