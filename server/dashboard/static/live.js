"use strict";
// Every few seconds the page is asked for again, and its parts that go on are put in place.
const note = document.getElementById("stale");

async function refresh() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(location.href, { cache: "no-store" });
  } catch {
    note.hidden = false;
    return;
  }
  if (!answer.ok) return location.reload();
  note.hidden = true;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    // Whoever is within a part by keyboard is not thrown out of it.
    const held = old.contains(document.activeElement);
    if (now && !held && now.innerHTML !== old.innerHTML) old.replaceChildren(...now.childNodes);
  }
}

setInterval(refresh, 5000);
