"""The pages in a real browser: how they are laid out and what they load."""

import pytest

from tests.dashboard.browser import DESKTOP, PHONE, Browser
from tests.dashboard.checks import OVERFLOW, PAGES, STRUCTURE, origin
from tests.dashboard.serving import Dashboard

SMALL_PHONE = 320, 640
TABLET = 820, 1100


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_and_asks_nobody_else(
    browser: Browser, shown: Dashboard, path: str
) -> None:
    browser.screen(DESKTOP)
    seen = browser.open(shown.address + path)
    assert seen.complaints == []
    assert seen.failures == []
    assert {origin(address) for address in seen.requests} == {shown.address}
    assert browser.script(STRUCTURE) == []


@pytest.mark.parametrize("path", PAGES)
def test_nothing_reaches_over_the_edge(browser: Browser, shown: Dashboard, path: str) -> None:
    browser.screen(PHONE)
    browser.open(shown.address + path)
    for size in (PHONE, SMALL_PHONE, TABLET, DESKTOP):
        browser.screen(size)
        # A telephone makes its view wider than its screen where a page does not fit.
        assert browser.script("innerWidth") == size[0]
        assert browser.script(OVERFLOW) <= 0, size
