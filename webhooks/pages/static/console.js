// Keeps what is on a page up to date: asks for the page again, and puts in what has changed. Everything works without it.
"use strict";

const EVERY = 4000; // milliseconds

/** Whether a person is at work in *part*, so that it had better stay as it is. */
function inUse(part) {
  const selected = document.getSelection();
  return part.contains(document.activeElement) || part.querySelector("details[open]") !== null
    || (selected !== null && !selected.isCollapsed && part.contains(selected.anchorNode));
}

async function refresh() {
  const parts = document.querySelectorAll("[data-live]");
  if (document.hidden || parts.length === 0) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error", cache: "no-store" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of parts) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next !== null && !inUse(part) && next.innerHTML !== part.innerHTML) part.replaceChildren(...next.childNodes);
  }
}

async function keep() {
  // A page that cannot be had now, or whose session is over, stays as it was: the next click says why.
  await refresh().catch(() => undefined);
  setTimeout(keep, EVERY);
}

setTimeout(keep, EVERY);
