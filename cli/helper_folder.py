"""The folder of a helper, as all commands of `palate helper` take it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from palate.cli.options import folder_option

FolderOption = Annotated[Path, folder_option("Folder of the helper.", show_default=True)]
HERE = Path("helper")
