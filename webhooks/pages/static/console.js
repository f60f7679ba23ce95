// Keeps a page up to date: fetches it again and patches in what has changed, or says that it cannot. Also makes a
// double click send a form once. Everything works without this script.
"use strict";

const EVERY = 4000; // milliseconds
const PATIENCE = 15000; // for one response
const SHORT = 3000; // the same, while a person waits for a form to be sent
const SELDOM = 10; // times the duration of the last response: slow pages are polled less often
const SELDOMEST = 60000;
const FAILURES = 2; // in a row: one may be a restart

const asOf = document.querySelector("[data-as-of]");
const pausing = document.querySelector("[data-pause]");
const trouble = document.querySelector("[data-trouble]");
const held = document.querySelector("[data-held]");
const title = document.title;
const person = asOf?.dataset.person; // the person this page was rendered for
// Later pages of a list stay as they were opened: new rows would shift their content.
const isLive = document.querySelector("[data-live]") !== null && !new URL(location).searchParams.has("after");

let pause = EVERY; // until the next try
let failures = 0;
let fresh = null; // the newest response

/** True if a person has typed or chosen anything in *part*. */
function isFilled(part) {
  const fields = [...part.querySelectorAll("input, textarea")];
  return fields.some((one) => one.value !== one.defaultValue || one.checked !== one.defaultChecked);
}

/** True if a person is editing, focusing or selecting in *part*, which then must not change. */
function inUse(part) {
  const selected = document.getSelection();
  const focused = document.activeElement?.closest("input, textarea, select, button");
  return isFilled(part) || (focused && part.contains(focused))
    || (selected !== null && !selected.isCollapsed && selected.containsNode(part, true));
}

/** The identity of a row or list entry: its first link or its time; of a form: its action and hidden fields. */
function keyOf(node) {
  if (node.nodeName === "FORM") {
    const about = [...node.querySelectorAll("input[type=hidden]:not([name=csrf])")].map((one) => `${one.name}=${one.value}`);
    return [node.getAttribute("action"), ...about].join(" ");
  }
  if (node.nodeName !== "TR" && node.nodeName !== "LI") return "";
  return node.querySelector("a[href]")?.getAttribute("href") ?? node.querySelector("time")?.dateTime ?? "";
}

/** The children of *parent* by node name, key, and ordinal among equals. */
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
 * Make *old* equal to *next*, keeping the nodes that both have: focus, scroll position and open details survive.
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

/** The content of *part*, ignoring relative times and open details. */
function saying(part) {
  const copy = part.cloneNode(true);
  copy.querySelectorAll("time").forEach((one) => { one.textContent = ""; });
  copy.querySelectorAll("details").forEach((one) => { one.open = false; });
  return copy.innerHTML;
}

/** Make a *change* without losing the keyboard's place: it may remove, hide or move the element with the focus. */
function keepingFocus(change) {
  const focused = document.activeElement;
  const around = focused.parentElement?.closest("[tabindex]");
  change();
  if (focused.isConnected && focused.checkVisibility()) {
    if (document.activeElement !== focused) focused.focus({ preventScroll: true });
  } else (around?.isConnected ? around : document.querySelector("main")).focus({ preventScroll: true });
}

/** Patch in the newest response. Parts in use are held back, unless *all* are wanted. */
function show(all) {
  let waiting = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next === null) continue;
    if (all || !inUse(part)) renew(part, next.cloneNode(true)); // a clone: new nodes move into the page, and the response may be shown again
    else waiting ||= saying(part) !== saying(next);
  }
  if (!waiting) renew(asOf, fresh.querySelector("[data-as-of]"));
  held.hidden = !waiting;
}

/** Remove an act's confirmation from the address, so that a reload does not show it again. */
function forgetWhatWasDone() {
  const address = new URL(location.href);
  for (const name of ["done", "replayed", "left"]) address.searchParams.delete(name);
  if (address.href !== location.href) history.replaceState(history.state, "", address);
}

/** Show, or clear, the notice that the page is out of date. */
function tell(kind, reason) {
  document.body.classList.toggle("stale", kind !== null);
  document.title = kind === null ? title : `${kind} · ${title}`;
  const said = kind === null ? "" : `${kind} since ${asOf.textContent}: ${reason}`;
  if (trouble.textContent !== said) trouble.textContent = said; // a screen reader announces each change once
}

/** Fetch the page; return null, or why it failed. A `certain` failure cannot be fixed by a retry. */
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
    keepingFocus(() => show(false));
    tell(null);
  } else if (refused.certain || failures >= FAILURES) tell("Not up to date", refused.reason);
}

let timer = 0;
let busy = false;

async function keep() {
  clearTimeout(timer);
  if (busy) return;
  busy = true;
  // Report any error, and keep polling.
  await refresh().catch((error) => tell("Not up to date", `this page’s script failed (${error.message}). Load it again.`));
  busy = false;
  timer = setTimeout(keep, pause);
}

function labelPausing() {
  pausing.textContent = isPaused() ? "Resume updates" : "Pause updates";
}

// A page in response to a form has the form's address, which cannot be fetched: switch to the page's own.
const own = document.querySelector("[data-own]");
if (own !== null) history.replaceState(history.state, "", own.dataset.own);

/**
 * Send a filled-in form, unless the session is over: the input would be lost. It is sent in the person's current
 * session, perhaps started in another tab, and never in somebody else's.
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
  held.querySelector("button").addEventListener("click", () => keepingFocus(() => show(true)));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) keep(); });
}

// An open menu would cover what the keyboard reaches next.
const menu = document.querySelector(".who");
menu?.addEventListener("focusout", ({ relatedTarget }) => {
  if (relatedTarget !== null && !menu.contains(relatedTarget)) menu.open = false;
});

timer = setTimeout(keep, pause);
if (isLive && isPaused()) keep();
