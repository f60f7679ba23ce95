// Keeps what is on a page up to date: asks for the page again, and puts in what has changed. Has a double click send a
// form once. Everything works without it.
"use strict";

const EVERY = 4000; // milliseconds

/** Whether a person is at work in *part*, so that it had better stay as it is. */
function inUse(part) {
  const selected = document.getSelection();
  const fields = [...part.querySelectorAll("input, textarea")];
  const filled = fields.some((one) => one.value !== one.defaultValue || one.checked !== one.defaultChecked);
  return filled || part.contains(document.activeElement) || part.querySelector("details[open]") !== null
    || (selected !== null && !selected.isCollapsed && part.contains(selected.anchorNode));
}

/** Put *nodes* into *part*, whose wide tables stay scrolled as they are. */
function replace(part, nodes) {
  const scrolled = [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  part.replaceChildren(...nodes);
  part.querySelectorAll(".scroll").forEach((one, place) => { one.scrollLeft = scrolled[place] ?? 0; });
}

/** What an act did was said once: whoever comes back to the page, or reloads it, is not told again. */
function forgetWhatWasDone() {
  const address = new URL(location.href);
  for (const name of ["done", "replayed", "left"]) address.searchParams.delete(name);
  if (address.href !== location.href) history.replaceState(history.state, "", address);
}

async function refresh() {
  forgetWhatWasDone();
  const parts = document.querySelectorAll("[data-live]");
  if (document.hidden || parts.length === 0) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error", cache: "no-store" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of parts) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next !== null && !inUse(part) && next.innerHTML !== part.innerHTML) replace(part, next.childNodes);
  }
}

async function keep() {
  // A page that cannot be had now, or whose session is over, stays as it was: the next click says why.
  await refresh().catch(() => undefined);
  setTimeout(keep, EVERY);
}

const sent = new WeakSet();

document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (sent.has(event.target)) event.preventDefault();
  sent.add(event.target);
  setTimeout(() => sent.delete(event.target), EVERY);
});

setTimeout(keep, EVERY);
