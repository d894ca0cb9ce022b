"""The pages' words and figures in a real browser: readable, light and dark, and never markup."""

import re

import pytest

from tests.dashboard.browser import DESKTOP, PHONE, Browser
from tests.dashboard.checks import CONTRAST, HOSTILE, OVERFLOW, PAGES, STRUCTURE, origin
from tests.dashboard.filled import FINISHED
from tests.dashboard.serving import Dashboard, run_page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_every_word_can_be_read(browser: Browser, shown: Dashboard, path: str, dark: bool) -> None:
    browser.screen(PHONE, dark)
    seen = browser.open(shown.address + path)
    assert seen.complaints == []
    background = browser.script("getComputedStyle(document.body).backgroundColor")
    first = int(re.findall(r"\d+", background)[0])
    assert (first < 60) is dark
    ratio, text = browser.script(CONTRAST)
    assert ratio >= 4.5, text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["wide", "narrow"])
def test_figures_are_those_of_the_screen(
    browser: Browser, shown: Dashboard, size: tuple[int, int], dark: bool
) -> None:
    browser.screen(size, dark)
    browser.open(shown.address + run_page(FINISHED))
    used = browser.script("[...document.querySelectorAll('figure img')].map(i => i.currentSrc)")
    assert len(used) == 4
    assert {("dark=1" in address, "narrow=1" in address) for address in used} == {
        (dark, size == PHONE)
    }


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["wide", "narrow"])
@pytest.mark.parametrize("path", HOSTILE)
def test_text_of_others_runs_nothing_and_stays_within_the_page(
    browser: Browser, hostile: Dashboard, path: str, size: tuple[int, int]
) -> None:
    browser.screen(size)
    seen = browser.open(hostile.address + path)
    assert seen.complaints == []
    assert {origin(address) for address in seen.requests} == {hostile.address}
    assert browser.script("typeof window.hacked") == "undefined"
    assert browser.script(OVERFLOW) <= 0
    assert browser.script(STRUCTURE) == []
