import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from common.errors import StateDamaged, StorageFull
from edge_client.case_journal import CaseJournal, LabelledCase
from tests.edge_client.cases import arriving


def ids(cases: Iterable[LabelledCase]) -> list[str]:
    return [case.case_id for case in cases]


def test_cases_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "site" / "journal"
    journal = CaseJournal(path)
    first, second = arriving(2, 1, round_number=1), arriving(2, 2, round_number=2)
    for case in (*first, *second):
        assert journal.append(case)
    for opened in (journal, CaseJournal(path)):
        assert ids(opened.cases()) == ids(first + second)
        assert ids(opened.cases(up_to_round=1)) == ids(first)
        assert list(opened.cases(up_to_round=0)) == []
        assert len(opened) == 12 and first[0].case_id in opened
        for stored, given in zip(opened.cases(), first + second, strict=True):
            assert (stored.code, stored.lesion_id) == (given.code, given.lesion_id)
            np.testing.assert_array_equal(stored.image, given.image)
        assert opened.facts() == [case.facts for case in first + second]
        assert opened.facts(up_to_round=1) == [case.facts for case in first]


def test_a_case_is_written_once_and_keeps_its_label(tmp_path: Path) -> None:
    journal = CaseJournal(tmp_path / "journal")
    case = arriving(1, 1, round_number=1)[0]
    assert journal.append(case)
    size = (tmp_path / "journal").stat().st_size
    relabelled = LabelledCase(case.case_id, case.lesion_id, "other", 2, case.image)
    assert not journal.append(relabelled)
    assert not CaseJournal(tmp_path / "journal").append(relabelled)
    assert (tmp_path / "journal").stat().st_size == size
    assert next(journal.cases()).code == case.code


def test_a_torn_tail_is_dropped_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = CaseJournal(path)
    cases = arriving(1, 1, round_number=1)
    journal.append(cases[0])
    whole = path.stat().st_size
    journal.append(cases[1])
    content = path.read_bytes()
    for length in (*range(whole, whole + 40), whole + 1000, len(content) - 1):
        path.write_bytes(content[:length])
        again = CaseJournal(path)
        assert ids(again.cases()) == ids(cases[:1])
        assert path.stat().st_size == whole
        assert again.append(cases[2])
        assert ids(CaseJournal(path).cases()) == [cases[0].case_id, cases[2].case_id]
    path.write_bytes(content[:whole] + b"\0" * 500)
    assert ids(CaseJournal(path).cases()) == ids(cases[:1])


def test_damage_before_the_last_record_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = CaseJournal(path)
    for case in arriving(1, 1, round_number=1):
        journal.append(case)
    content = path.read_bytes()
    for place in (0, 5, 9, 13, 30, 2000, len(content) // 2):
        changed = bytearray(content)
        changed[place] ^= 0x40
        path.write_bytes(changed)
        with pytest.raises(StateDamaged, match="journal is damaged at byte"):
            CaseJournal(path)


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    """With a limit on the size of files, which fails in the middle of a record as a disk does."""
    path = tmp_path / "journal"
    script = """
import errno, resource, signal, sys
from pathlib import Path
from common.errors import StorageFull
from edge_client.case_journal import CaseJournal
from tests.edge_client.cases import arriving
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
cases = arriving(1, 1, round_number=1)
journal = CaseJournal(path)
journal.append(cases[0])
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    journal.append(cases[1])
except OSError as error:
    assert error.errno == errno.EFBIG
except StorageFull as error:
    assert "journal" in str(error)
else:
    sys.exit(9)
assert cases[1].case_id not in journal and len(list(journal.cases())) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert journal.append(cases[1])
assert len(list(CaseJournal(path).cases())) == 2
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_no_space_left_is_storage_full(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = CaseJournal(path)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(StorageFull, match=r"journal.*No space left"):
        journal.append(arriving(1, 1, round_number=1)[0])


def test_every_acknowledged_case_survives_kill_9(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
from edge_client.case_journal import CaseJournal, LabelledCase
journal = CaseJournal(Path(sys.argv[1]))
number = len(journal)
while True:
    image = np.full((64, 64, 3), number % 256, np.uint8)
    journal.append(LabelledCase(f"case-{number}", "l", "mel", 1, image))
    print(number, flush=True)
    number += 1
"""
    path = tmp_path / "journal"
    acknowledged = -1
    for trial in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            acknowledged = int(process.stdout.readline())
            time.sleep(0.02 + 0.013 * trial)
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split("\n")[:-1]  # a line cut short was not said
            acknowledged = int(rest[-1]) if rest else acknowledged
        cases = list(CaseJournal(path).cases())
        assert ids(cases) == [f"case-{i}" for i in range(len(cases))]
        assert len(cases) in (acknowledged + 1, acknowledged + 2)
        assert all((case.image == i % 256).all() for i, case in enumerate(cases))
