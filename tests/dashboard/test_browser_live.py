"""A page that stays open in a real browser is kept new, and says when it is not."""

import signal
import time

from server.history.membership import open_membership
from server.server_settings import ServerFolder
from tests.dashboard.browser import DESKTOP, Browser
from tests.dashboard.serving import Dashboard, dashboard


def wait_for(browser: Browser, expression: str, seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not browser.script(expression):
        assert time.monotonic() < give_up, expression
        time.sleep(0.5)


def test_what_goes_on_is_brought_up_to_date(browser: Browser, fresh: ServerFolder) -> None:
    browser.screen(DESKTOP)
    with dashboard(fresh) as found:
        browser.open(f"{found.address}/")
        browser.script("window.same = true")
        assert "clinic_new" not in browser.script("document.body.innerText")
        with open_membership(fresh.database_url()) as members:
            members.invite("clinic_new", 72)
        wait_for(browser, "document.body?.innerText.includes('clinic_new')")
        assert browser.script("window.same")  # the page itself was not loaded anew
        assert browser.script("document.getElementById('stale').hidden")
        found.stop(signal.SIGKILL)
        wait_for(browser, "!document.getElementById('stale').hidden")
        note = browser.script("document.getElementById('stale').innerText")
        assert "does not answer any more" in note


def test_a_page_that_could_not_be_made_comes_by_itself_later(
    browser: Browser, own: ServerFolder, own_shown: Dashboard
) -> None:
    settings = own.path / "fedqana.toml"
    kept = settings.read_text()
    settings.write_text("address = ")
    browser.screen(DESKTOP)
    browser.open(f"{own_shown.address}/")
    assert "cannot be shown now" in browser.script("document.body.innerText")
    settings.write_text(kept)
    wait_for(browser, "document.body?.innerText.includes('No site has been invited yet')")
