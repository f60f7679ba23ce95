// Keeps what is on a page up to date: asks for the page again, and puts in what has changed. Where it cannot, it says
// so. Has a double click send a form once. Everything works without it.
"use strict";

const EVERY = 4000; // milliseconds
const PATIENCE = 15000; // with one answer
const SHORT = 3000; // the same while somebody waits for their form to be sent
const SELDOM = 10; // times what the last answer took: a list that is long in coming is asked for less often
const SELDOMEST = 60000;
const FAILURES = 2; // in a row: one may be a restart

const asOf = document.querySelector("[data-as-of]");
const pausing = document.querySelector("[data-pause]");
const trouble = document.querySelector("[data-trouble]");
const held = document.querySelector("[data-held]");
const title = document.title;
const person = asOf?.dataset.person; // whose page this is, and whose name stands above what is typed
// What follows a first page is as it was when somebody turned to it: rows that come in would push it along.
const isLive = document.querySelector("[data-live]") !== null && !new URL(location).searchParams.has("after");

let pause = EVERY; // until the next try
let failures = 0;
let fresh = null; // the newest answer

/** Whether somebody has typed or chosen anything in *part*. */
function isFilled(part) {
  const fields = [...part.querySelectorAll("input, textarea")];
  return fields.some((one) => one.value !== one.defaultValue || one.checked !== one.defaultChecked);
}

/** Whether a person is at work in *part*, so that it had better stay as it is. To look at a table is no work. */
function inUse(part) {
  const selected = document.getSelection();
  const focused = document.activeElement?.closest("input, textarea, select, button");
  return isFilled(part) || (focused && part.contains(focused))
    || (selected !== null && !selected.isCollapsed && part.contains(selected.anchorNode));
}

/** By what a row or an entry is known again: what it leads to first, or when it was; and a form: by what it is about. */
function keyOf(node) {
  if (node.nodeName === "FORM") {
    const about = [...node.querySelectorAll("input[type=hidden]:not([name=csrf])")].map((one) => `${one.name}=${one.value}`);
    return [node.getAttribute("action"), ...about].join(" ");
  }
  if (node.nodeName !== "TR" && node.nodeName !== "LI") return "";
  return node.querySelector("a[href]")?.getAttribute("href") ?? node.querySelector("time")?.dateTime ?? "";
}

/** The children of *parent* by their kind, their key, and which of that kind and key each is. */
function named(parent) {
  const seen = new Map(), found = new Map();
  for (const node of parent.childNodes) {
    const kind = `${node.nodeName} ${keyOf(node)}`;
    seen.set(kind, (seen.get(kind) ?? 0) + 1);
    found.set(`${kind} ${seen.get(kind)}`, node);
  }
  return found;
}

/**
 * Make *old* what *next* is, and leave each node that is the same where it is: what is read, focused, scrolled or
 * unfolded stays so.
 */
function renew(old, next) {
  if (!(old instanceof Element)) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const had = named(old), wanted = named(next);
  for (const [name, node] of had) if (!wanted.has(name)) node.remove();
  let place = old.firstChild;
  for (const [name, node] of wanted) {
    const mine = had.get(name);
    if (mine === undefined) old.insertBefore(node, place);
    else {
      if (mine === place) place = place.nextSibling;
      else old.insertBefore(mine, place);
      renew(mine, node);
    }
  }
}

/** What *part* says, but for how long ago things were. */
function saying(part) {
  const copy = part.cloneNode(true);
  copy.querySelectorAll("time").forEach((one) => { one.textContent = ""; });
  copy.querySelectorAll("details").forEach((one) => { one.open = false; });
  return copy.innerHTML;
}

/** Put in what the newest answer has. Parts that a person is at work in wait, unless *all* are wanted. */
function show(all) {
  let waiting = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next === null) continue;
    if (all || !inUse(part)) renew(part, next.cloneNode(true)); // what is new moves in, and the answer may be shown again
    else waiting ||= saying(part) !== saying(next);
  }
  if (!waiting) renew(asOf, fresh.querySelector("[data-as-of]"));
  held.hidden = !waiting;
}

/** What an act did was said once: whoever comes back to the page, or reloads it, is not told again. */
function forgetWhatWasDone() {
  const address = new URL(location.href);
  for (const name of ["done", "replayed", "left"]) address.searchParams.delete(name);
  if (address.href !== location.href) history.replaceState(history.state, "", address);
}

/** Say, or say no more, that what is seen is not what is so. */
function tell(kind, reason) {
  document.body.classList.toggle("stale", kind !== null);
  document.title = kind === null ? title : `${kind} · ${title}`;
  const said = kind === null ? "" : `${kind} since ${asOf.textContent}: ${reason}`;
  if (trouble.textContent !== said) trouble.textContent = said; // a screen reader says each change once
}

/** Why the page cannot be had; null: here it is. Certain is what no further try will mend. */
async function ask(patience) {
  const began = performance.now();
  let answer;
  try {
    const headers = { Accept: "text/html", "Aswhom-Live": "1" };
    const signal = AbortSignal.timeout(patience);
    answer = await fetch(location.href, { headers, redirect: "manual", cache: "no-store", signal });
    if (answer.ok) fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return { reason: "Aswhom does not answer." };
  }
  if (answer.type === "opaqueredirect") {
    const next = isFilled(document) ? "Sign in in another tab, then go on here: what you typed stays." : "Load the page again to sign in.";
    return { certain: true, reason: `your session is over. ${next}` };
  }
  const whose = answer.ok ? fresh.querySelector("[data-as-of]")?.dataset.person : undefined;
  if (whose !== undefined && whose !== person) {
    const next = isFilled(document) ? "Sign in as yourself in another tab, then go on here: what you typed stays." : "Load the page again to go on as them.";
    return { certain: true, reason: `somebody else is signed in in this browser by now. ${next}` };
  }
  if (whose !== undefined) {
    pause = Math.min(Math.max(EVERY, SELDOM * (performance.now() - began)), SELDOMEST);
    return null;
  }
  return { reason: `Aswhom answers ${answer.status}. Load the page again to see why.` };
}

function isPaused() {
  return sessionStorage.getItem("paused") !== null;
}

async function refresh() {
  forgetWhatWasDone();
  if (!isLive || document.hidden) return;
  if (isPaused()) {
    tell("Paused", "updates are paused here.");
    return;
  }
  const refused = await ask(PATIENCE);
  if (isPaused()) return;
  failures = refused === null ? 0 : failures + 1;
  if (refused === null) {
    show(false);
    tell(null);
  } else if (refused.certain || failures >= FAILURES) tell("Not up to date", refused.reason);
}

let timer = 0;
let busy = false;

async function keep() {
  clearTimeout(timer);
  if (busy) return;
  busy = true;
  // Whatever goes wrong here is a reason to say so, and none to stop.
  await refresh().catch((error) => tell("Not up to date", `this page’s script failed (${error.message}). Load it again.`));
  busy = false;
  timer = setTimeout(keep, pause);
}

function labelPausing() {
  pausing.textContent = isPaused() ? "Resume updates" : "Pause updates";
}

// A page that answers a form stands at the form's address, where there is nothing to ask for: it goes on at its own.
const own = document.querySelector("[data-own]");
if (own !== null) history.replaceState(history.state, "", own.dataset.own);

/**
 * Send a form that somebody has filled in, unless their session is over: what they typed would be lost. It is sent in
 * the session that they have by now, begun in another tab perhaps, and never in somebody else's.
 */
async function sendIfSignedIn(form, button) {
  const refused = await ask(SHORT);
  if (refused?.certain) {
    tell("Not up to date", `nothing was sent, for ${refused.reason}`);
    sent.delete(form);
    return;
  }
  const csrf = refused === null ? fresh.querySelector("input[name=csrf]") : null;
  if (csrf !== null) form.elements.csrf.value = csrf.value;
  looked.add(form);
  form.requestSubmit(button);
}

const sent = new WeakSet(), looked = new WeakSet();

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || looked.delete(form)) return;
  const again = sent.has(form);
  if (again || isFilled(form)) event.preventDefault();
  sent.add(form);
  if (again) return;
  setTimeout(() => sent.delete(form), EVERY);
  if (isFilled(form)) sendIfSignedIn(form, event.submitter);
});

if (isLive) {
  pausing.hidden = false;
  labelPausing();
  pausing.addEventListener("click", () => {
    if (isPaused()) sessionStorage.removeItem("paused");
    else sessionStorage.setItem("paused", "1");
    labelPausing();
    keep();
  });
  held.querySelector("button").addEventListener("click", () => show(true));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) keep(); });
}
timer = setTimeout(keep, pause);
if (isLive && isPaused()) keep();
