"""What the site has: its cases, their classes, the audit log, the state of what was learned."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.classes import ClassMap
from common.data.check import DataReport, check_folder
from common.errors import StateDamaged, StateInUse
from common.files import sha256_of
from edge_client.checks.findings import Check, Outcome, counted, failed, not_checked, ok, warning
from edge_client.checks.limits import ProcessDied, in_own_process
from edge_client.site import PARTS, SiteData, SiteFolder
from edge_client.versions import VersionFolder

_DATA_SECONDS = 10.0


class SiteChecks:
    """Reads what is in a home folder; ``data`` is a folder of images to look at as well."""

    def __init__(self, home: Path, data: Path | None) -> None:
        self._home = home
        self._data = data
        self._site: SiteData | None = None

    def checks(self) -> Sequence[Check]:
        """In the order in which they are shown."""
        audit_slow = warning(
            "it is long and was not read to its end; see 'fedqana client audit --verify'"
        )
        checks = [
            Check("cases", self.cases, 8.0),
            Check("classes", self.classes),
            Check("audit log", self.audit_log, 6.0, audit_slow),
            Check("state lock", self.state_lock),
            Check("state", self.state, 6.0),
        ]
        if self._data is not None:
            slow = self._many_images()
            checks.append(Check("images", self.images, _DATA_SECONDS + 1, slow))
        return checks

    def _many_images(self) -> Outcome:
        return warning(
            f"there are more images than can be looked at in {_DATA_SECONDS:.0f} s; see 'fedqana "
            f"data check {self._data}'"
        )

    def cases(self) -> Outcome:
        """The prepared cases can be read, and there are some to train on and to judge by."""
        site = SiteFolder(self._home).read()
        numbers = {part: len(getattr(site, part)) for part in PARTS}
        missing = [part for part, n in numbers.items() if not n]
        if missing:
            return failed(
                f"no case for {' and '.join(missing)}; add images: 'fedqana "
                "client prepare --data DIR'"
            )
        labels = np.concatenate([getattr(site, part).labels for part in PARTS])
        if not 0 <= labels.min() <= labels.max() < len(site.classes):
            return failed(
                "site.json and cases.npz do not fit each other; restore both from a backup"
            )
        self._site = site
        size = site.train.images.shape[1]
        return ok(
            f"{numbers['train']:,} to train on, {numbers['validation']:,} to validate, "
            f"{numbers['test']:,} to test, of {size} x {size} pixels, crop {site.crop.name!r}"
        )

    def classes(self) -> Outcome:
        """The site's class codes; those that were allowed later too."""
        from edge_client.local_service.added_classes import AddedClasses

        if self._site is None:
            return not_checked("the cases must be mended first")
        own = self._site.classes.codes
        added = [c for c in AddedClasses(SiteFolder(self._home).state).codes if c not in own]
        trained = {own[label] for label in self._site.train.labels}
        lacking = [code for code in own if code not in trained]
        text = ", ".join(own)
        text += f"; allowed later: {', '.join(added)}" if added else ""
        if len(trained) < 2:
            return failed(f"there are cases of one class only to train on; {text}")
        return ok(text + (f"; without a case to train on: {', '.join(lacking)}" if lacking else ""))

    def images(self) -> Outcome:
        """A folder of labelled images, as `fedqana data check` looks at it."""
        assert self._data is not None
        if self._site is None:
            return not_checked("the cases must be mended first: they tell the classes")
        try:
            report: DataReport = in_own_process(
                _DATA_SECONDS, check_folder, self._data, ClassMap(self._site.classes.codes)
            )
        except ProcessDied as error:
            return failed(
                f"the check ended with {error}: too little memory, or an image that its decoder "
                f"cannot bear; see 'fedqana data check {self._data}'"
            )
        except TimeoutError:
            return self._many_images()
        found = f"{counted(report.images, 'image')} of {counted(report.lesions, 'lesion')}"
        if report.problems:
            return failed(
                f"{found}, {counted(len(report.problems), 'problem')}, first: "
                f"{report.problems[0]}; see 'fedqana data check {self._data}'"
            )
        notes = f", {counted(len(report.notes), 'note')} in 'fedqana data check'"
        return ok(found + (notes if report.notes else ""))

    def audit_log(self) -> Outcome:
        """The chain of the audit log's lines holds."""
        from edge_client.audit_log import verify

        report = verify(self._home)
        if report.problems:
            return failed(
                f"{report.problems[0]} ({counted(len(report.problems), 'problem')}); nothing is "
                "sent while its end is damaged: see 'fedqana client audit --verify', compare it "
                "with a backup"
            )
        return ok(f"{counted(report.lines, 'line')}, as they were written")

    def state_lock(self) -> Outcome:
        """Nobody holds the state folder for longer than an installation takes."""
        from edge_client.state_lock import state_in_use

        state = SiteFolder(self._home).state
        if not state.is_dir():
            return ok("there is no state yet")
        try:
            with state_in_use(state, wait=1.0, shared=True):
                return ok("free")
        except StateInUse:
            return warning(
                "another process is changing the state, e.g. installing a version; that takes up "
                "to some minutes: if it stays so, restart the client"
            )

    def state(self) -> Outcome:
        """Journal and versions are as they were written."""
        from edge_client.case_journal import CaseJournal
        from edge_client.exemplars import ExemplarStore
        from edge_client.state_lock import state_in_use

        folder = SiteFolder(self._home).state
        if not folder.is_dir():
            return ok("no version was installed yet")
        try:
            with state_in_use(folder, wait=3.0, shared=True):
                journal = CaseJournal(folder / "cases.journal", read_only=True)
                learned = counted(len(journal), "case") + " in the journal"
                versions, current = VersionFolder(folder), version_in_service(folder)
                if current is None:
                    return ok(f"no version was installed yet, {learned}")
                kept = versions.names()
                versions.report(current)
                ExemplarStore.load(versions.file(current, "exemplars.bin"))
                name = versions.learned(current).file
                content = versions.read(current, name)
        except StateInUse:
            return not_checked("another process is changing the state")
        if sha256_of(content)[:12] not in name:
            return failed(
                f"{versions.file(current, name)} is not what was written there; restore it from a "
                "backup or go back with 'fedqana client rollback'"
            )
        return ok(f"version {current} of {counted(len(kept), 'version')} kept, {learned}")


def version_in_service(state: Path) -> str | None:
    """The version that a state folder names, None before the first; StateDamaged for no name."""
    try:
        name = VersionFolder(state).current()
    except (OSError, ValueError):
        name = ""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise StateDamaged(
            f"{state / 'current'} is not what was written there; write the name of a folder in "
            f"{state / 'versions'} into it, or restore it from a backup"
        )
    return name
