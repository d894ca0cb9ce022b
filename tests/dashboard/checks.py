"""What is asked of every page in the browser: pages, and scripts that look for what is wrong."""

from urllib.parse import urlsplit

from tests.dashboard.filled import DELIVERY, FINISHED, HOSTILE_RUN, RUNNING
from tests.dashboard.serving import run_page

PAGES = [
    "/",
    "/runs",
    run_page(RUNNING),
    run_page(FINISHED),
    run_page(DELIVERY),
    run_page(FINISHED, "/events"),
    "/models",
    "/audit",
]
HOSTILE = [
    "/",
    "/runs",
    run_page(HOSTILE_RUN),
    run_page(HOSTILE_RUN, "/events"),
    "/models",
    "/audit",
]

# How far anything reaches over the right edge, but for what scrolls by itself.
OVERFLOW = """
[document.documentElement.scrollWidth - innerWidth,
 ...[...document.querySelectorAll("body *")]
   .filter(e => !e.closest(".scroll") && !e.closest(".hidden") && !e.matches(".skip"))
   .filter(e => getComputedStyle(e).clipPath === "none" && !e.closest("thead"))
   .map(e => Math.round(e.getBoundingClientRect().right - innerWidth))]
 .reduce((a, b) => Math.max(a, b))
"""

# The lowest contrast of any text with what is behind it (WCAG 2.2, 1.4.3), and the text.
CONTRAST = """
(() => {
  const parse = c => {
    const [r, g, b, a = 1] = c.match(/[0-9.]+/g).map(Number);
    return {r, g, b, a};
  };
  const light = ({r, g, b}) => {
    const f = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.a === 1) return c;
    }
    return {r: 255, g: 255, b: 255};
  };
  let worst = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walker.nextNode();) {
    if (!n.data.trim() || !n.parentElement.checkVisibility()) continue;
    const [a, b] = [parse(getComputedStyle(n.parentElement).color), behind(n.parentElement)]
      .map(light).sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, n.data.trim()];
  }
  return worst;
})()
"""

# What a screen reader needs of every page, as a list of what is wrong.
STRUCTURE = """
(() => {
  const wrong = [];
  const need = (ok, what) => ok || wrong.push(what);
  for (const name of ["header", "nav", "main", "footer", "h1"])
    need(document.querySelector("body " + name), "no " + name);
  need(document.querySelectorAll("h1").length === 1, "several h1");
  need(document.documentElement.lang === "en", "no language");
  need(document.title.length > 9, "no title");
  let level = 1;
  for (const h of document.querySelectorAll("h1, h2, h3")) {
    need(+h.tagName[1] <= level + 1, "a heading skips a level: " + h.textContent);
    level = +h.tagName[1];
  }
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  need(new Set(ids).size === ids.length, "an id is there twice");
  for (const e of document.querySelectorAll("[aria-labelledby]"))
    need(document.getElementById(e.getAttribute("aria-labelledby")), "a label is missing");
  for (const i of document.querySelectorAll("img")) {
    need(i.hasAttribute("alt"), "an image without text");
    need(i.naturalWidth > 0, "an image did not load: " + i.src);
  }
  for (const t of document.querySelectorAll("table")) {
    need(t.caption, "a table without caption");
    need([...t.tHead.rows[0].cells].every(c => c.tagName === "TH" && c.scope === "col"),
         "a column without heading");
    const columns = t.tHead.rows[0].cells.length;
    need([...t.tBodies[0].rows].every(r => r.cells.length === columns), "a row of other length");
    if (t.classList.contains("stack"))
      for (const r of t.tBodies[0].rows)
        for (const c of r.cells) {
          need(c.getAttribute("role"), "a cell without role");
          if (c.tagName === "TD")
            need(c.dataset.label === t.tHead.rows[0].cells[c.cellIndex].textContent,
                 "a cell is labelled otherwise than its column: " + c.dataset.label);
        }
  }
  for (const e of document.querySelectorAll(".scroll"))
    need(e.tabIndex === 0 && e.getAttribute("role") === "region", "no scrolling by key");
  return wrong;
})()
"""


def origin(address: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
