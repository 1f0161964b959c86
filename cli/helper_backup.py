"""`palate helper backup` and `restore`: a helper's folder without what must never come back."""

from __future__ import annotations

from palate.cli.helper_folder import HERE, FolderOption
from palate.cli.server_backup import SourceArgument, TargetArgument
from palate.cli.terminal import Answer, answering
from palate.server.helper.folder import HelperFolder


@answering
def backup(target: TargetArgument, *, folder: FolderOption = HERE) -> Answer:
    """Write settings, cards, keys and ledger into one file. Works while the helper runs.

    Round keys and the anchor are left out: with them a restored helper could answer a round a second time. It holds the
    helper's secret key: keep it where the server cannot read it. palate helper start --backup TARGET writes one after
    every answer.
    """
    from palate.server.helper.backup import back_up

    path, contents = back_up(HelperFolder(folder), target)
    values = {"file": str(path), "fleet": contents.fleet, "made_at": contents.made_at, "files": len(contents.files)}
    lines = [f"wrote {path}: helper of {contents.fleet}, {len(contents.files)} files"]
    return Answer(values, lines, (), ["it holds the helper's secret key: keep it where the server cannot read it"])


@answering
def restore(source: SourceArgument, *, folder: FolderOption = HERE) -> Answer:
    """Restore a backup into a folder that is empty, or not there yet; it is checked first.

    An old ledger does not know what was answered since, so an anchor that has seen a newer one refuses it (exit code
    6). Rounds that were open can no longer be answered: their keys are in no backup.
    """
    from palate.server.helper.backup import restore as restored

    found = restored(source, HelperFolder(folder))
    rounds = "1 round" if found.answers == 1 else f"{found.answers} rounds"
    lines = [f"{folder}: helper of {found.contents.fleet}, as it was on {found.contents.date}; {rounds} answered"]
    notes = ["a round that was open then gets no answer any more: its key is in no backup"]
    if found.anchored:
        notes.append(f"the anchor {found.anchor} agrees; next: palate helper start")
    else:
        notes.append(
            f"the anchor {found.anchor} is not there: bring it, then palate helper start. If it is lost for good, and "
            "no round was answered after the backup, write it anew: palate helper anchor"
        )
    values = {
        "folder": str(folder),
        "made_at": found.contents.made_at,
        "rounds_answered": found.answers,
        "anchor": str(found.anchor),
        "anchor_agrees": found.anchored,
    }
    return Answer(values, lines, (), notes)
