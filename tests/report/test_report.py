"""The report: whole for any run, self-contained, and with the numbers that the metrics give."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.metrics import ScoreCounts, summarize
from common.referral_curve import curve_of_counts
from server.history.records import Event, RunRecord
from server.report.build import write_report
from tests.report import sample_record

_VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "<script>alert(1)</script>\"'$\\frac{$ _x"


class Page(HTMLParser):
    """Checks that every tag is closed, and collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text = f"{self.text} {' '.join(data.split())}".strip()


def report(record: RunRecord, folder: Path) -> Page:
    output = folder / "report.html"
    write_report(record, output)
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return Page(output.read_text(encoding="utf-8"))


def hostile() -> RunRecord:
    """Names and reasons that would be markup, formulae or hidden labels if taken literally."""
    record = sample_record.renamed(sample_record.complete("</td>"), lambda name: HOSTILE + name)
    return dataclasses.replace(
        record, run=dataclasses.replace(record.run, state="stopped", reason="<img src=x onerror=1>")
    )


RECORDS = {
    "complete": sample_record.complete,
    "new class": lambda: sample_record.complete("scc"),
    "partial": sample_record.partial,
    "unfinished": sample_record.unfinished,
    "empty": sample_record.empty,
    "hostile": hostile,
}


@pytest.mark.parametrize("kind", RECORDS)
def test_report_is_self_contained(kind: str, tmp_path: Path) -> None:
    page = report(RECORDS[kind](), tmp_path)
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name == "src":
            assert value.startswith("data:image/svg+xml;base64,")
            drawing = base64.b64decode(value.split(",")[1]).decode()
            assert not re.search(r'(href|src)="(?!#|data:)', drawing)
        if name == "href":
            assert value.startswith("#")
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert page.tags.count("caption") == page.tags.count("table")


def test_headline_numbers_are_those_of_the_metrics(tmp_path: Path) -> None:
    record = sample_record.complete()
    page = report(record, tmp_path)
    for head in ("float", "quantized", "akida", "chip"):
        total = ScoreCounts.zeros(7)
        for result in record.site_results:
            if result.step == "final":
                total = total + ScoreCounts.from_json(result.result[head])
        s = summarize(total, sample_record.CODES)
        assert s.melanoma_sensitivity is not None and s.melanoma_sensitivity_95 is not None
        for e in (
            s.accuracy,
            s.balanced_accuracy,
            s.macro_f1,
            s.macro_auc,
            s.melanoma_sensitivity,
            s.melanoma_sensitivity_95,
            *curve_of_counts(total)[:6],
            *s.recall.values(),
        ):
            assert e.value is not None
            assert f"{e.value:.3f} {e.low:.3f}–{e.high:.3f} n = {e.n}" in page.text
    assert "has not finished" not in page.text


def test_operation_is_reported(tmp_path: Path) -> None:
    text = report(sample_record.complete("scc"), tmp_path).text
    for expected in (
        "FedAvg",
        "akida 2.19.3",
        "no reply within 300 s",
        "model hash differs",
        "kept the old version worse-than-current",
        "the site kept the one it had. Of those in service the sites fine-tuned 1 for themselves",
        "6 vidir_modern 6 switched over, fine-tuned 6",
        "not enough components of type FNP2 at layer spike",
        "31,450,112",
        "421 kB",
        "97.66 % 115,500 of 118,272",
        "test lesions 97.66 % 80,000 of 81,920 98.75 % 316 of 320",
        "CNP1 75, FNP2 3",
        "ghost_1 2,101",
        "85.0 % 17 of 20",
        "no Akida hardware, software backend (akida 2.19.3)",
        "1 min 02 s",
        "event number 80",
    ):
        assert expected in text
    assert "event number 30 " not in text
    assert "(akida 2.19.3) backend" not in text


def test_a_site_with_too_few_cases_gets_a_note(tmp_path: Path) -> None:
    text = report(sample_record.complete(), tmp_path).text
    assert "vienna_dias 4 – too few cases (4 of 5)" in text


def test_a_running_run_shows_its_last_validation(tmp_path: Path) -> None:
    record = sample_record.partial()
    text = report(record, tmp_path).text
    assert "This run has not finished" in text
    assert "validation lesions of round 1, 4 sites" in text
    assert "not measured no program ran yet" in text
    total = ScoreCounts.zeros(7)
    for result in record.site_results:
        if result.step == "evaluate":
            total = total + ScoreCounts.from_json(result.result["global"])
    value = summarize(total, sample_record.CODES).balanced_accuracy.value
    assert f"{value:.3f}" in text


def test_a_stopped_run_shows_each_head_where_it_was_last_judged(tmp_path: Path) -> None:
    text = report(sample_record.unfinished(), tmp_path).text
    assert "This run was stopped before it finished" in text
    assert "float network validation lesions of round 4" in text
    for head in ("quantized network", "Akida program", "chip head"):
        assert f"{head} validation lesions of round 6" in text


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    assert " ".join((HOSTILE + "rosendahl").split()) in report(hostile(), tmp_path).text


@pytest.mark.parametrize("junk", [None, 3, "text", [1], {"confusion": [[1]]}, {"fits": [None]}])
def test_payloads_that_are_not_what_was_agreed_are_left_out(junk: Any, tmp_path: Path) -> None:
    whole = sample_record.complete("scc")

    def spoil(payload: dict[str, Any]) -> dict[str, Any]:
        return dict.fromkeys(payload, junk)

    record = dataclasses.replace(
        whole,
        site_results=[dataclasses.replace(r, result=spoil(r.result)) for r in whole.site_results],
        edge_updates=[dataclasses.replace(u, result=spoil(u.result)) for u in whole.edge_updates],
        versions=[
            dataclasses.replace(v, fit={"AKD1000": junk}, metrics=spoil(v.metrics))
            for v in whole.versions
        ],
    )
    assert "No site has reported an evaluation yet" in report(record, tmp_path).text


def test_latency_is_shown_when_it_was_measured(tmp_path: Path) -> None:
    record = sample_record.complete()
    updates = [
        dataclasses.replace(u, result={**u.result, "backend": "AKD1000", "latency_ms": 1.25})
        for u in record.edge_updates
    ]
    text = report(dataclasses.replace(record, edge_updates=updates), tmp_path).text
    assert "latency per image 1.25 to 1.25 ms measured on hardware at 4 of 4 sites" in text


def test_a_later_report_replaces_the_earlier_one(tmp_path: Path) -> None:
    report(sample_record.partial(), tmp_path)
    assert "stopped: interrupted" in report(sample_record.unfinished(), tmp_path).text


def test_a_discarded_round_is_named(tmp_path: Path) -> None:
    record = sample_record.complete()
    assert "Discarded" not in report(record, tmp_path).text
    event = Event(99, record.run.run_id, record.run.created_at, "round-discarded", "why", 4)
    changed = dataclasses.replace(record, events=[*record.events, event])
    assert "could not be converted: round 4." in report(changed, tmp_path).text
