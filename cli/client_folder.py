"""The option `--folder` of `palate client`, and the folder that it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from palate.cli.options import folder_option
from palate.client.fleet.folder import ENVIRONMENT, DeviceFolder, default_home

FolderOption = Annotated[Path | None, folder_option("Folder of the device.", envvar=ENVIRONMENT)]


def device_folder(folder: Path | None) -> DeviceFolder:
    """Return the folder that was named, or the device's usual one."""
    return DeviceFolder((folder or default_home()).absolute())
