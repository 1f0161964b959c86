"""Files with certificates, and with the requests of their devices: one as it is, or several behind their lengths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from palate.privacy.aggregators.admission import Certificate
from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.enrolment import EnrolmentRequest, device_name
from palate.privacy.secagg.encoding import MAGIC
from palate.server.helper.queries import parts_of

_JSON = b"{"


@dataclass(frozen=True)
class Asked:
    """A device that the helper's operator may admit.

    Attributes
    ----------
    certificate
        With the leader's signature.
    request
        What its owner asked for, where it is known: its fingerprint is the one that the owner's device shows.
    """

    certificate: Certificate
    request: EnrolmentRequest | None


def certificates_in(data: bytes) -> list[Certificate]:
    """Read the certificates of a file; their signatures are not checked.

    Raises
    ------
    MessageError, RequestRefused
        If something else is in it.
    """
    return [Certificate.from_bytes(each) for each in ([data] if data.startswith(MAGIC) else parts_of(data))]


def asked_in(contents: Iterable[bytes]) -> list[Asked]:
    """Read files of certificates and of requests, in any order.

    Raises
    ------
    MessageError, RequestRefused, EnrolmentFileRefused
        If something else is in one of them.
    RegisterRefused
        If a certificate is for another device than its key's request, or a request has none.
    """
    certificates: list[Certificate] = []
    requests: dict[bytes, EnrolmentRequest] = {}
    for data in contents:
        single = data.startswith(MAGIC) or data.lstrip().startswith(_JSON)
        for part in [data] if single else parts_of(data):
            if part.lstrip().startswith(_JSON):
                request = EnrolmentRequest.open(part)
                requests[request.identity_key.public_bytes_raw()] = request
            else:
                certificates.append(Certificate.from_bytes(part))
    asked = [Asked(each, requests.pop(each.identity_key, None)) for each in certificates]
    for each in asked:
        first = each.certificate.generation == 1  # a later key goes on under the number of the first
        if first and each.request is not None and each.request.device != each.certificate.device:
            raise RegisterRefused(
                f"the certificate of device {device_name(each.certificate.device)} has the key of device "
                f"{device_name(each.request.device)}",
                hint="ask the server's operator for the right one",
            )
    if requests:
        names = ", ".join(device_name(each.device) for each in requests.values())
        raise RegisterRefused(f"there is no certificate for {names}", hint="the server signs first")
    return asked
