"""Files with certificates: one, or several behind their lengths."""

from __future__ import annotations

from palate.privacy.aggregators.admission import Certificate
from palate.privacy.secagg.encoding import MAGIC
from palate.server.helper.queries import parts_of


def certificates_in(data: bytes) -> list[Certificate]:
    """Read the certificates of a file; their signatures are not checked.

    Raises
    ------
    MessageError, RequestRefused
        If something else is in it.
    """
    return [Certificate.from_bytes(each) for each in ([data] if data.startswith(MAGIC) else parts_of(data))]
