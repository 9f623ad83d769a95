// Live parts renew themselves while they are looked at: <div data-poll hx-get="…" hx-trigger="poll" hx-swap="outerHTML">.
// Every 3 s while the person is there, every minute once nothing moved for a while, never while the page is hidden. Once the
// session has ended no part is renewed any more, and the page says so.
const ACTIVE_MS = 3_000;
const IDLE_MS = 60_000;
const IDLE_AFTER_MS = 120_000;
let movedAt = performance.now();
let polledAt = performance.now();
let isSignedOut = false;

for (const sign of ["pointermove", "keydown", "scroll", "visibilitychange"]) {
  document.addEventListener(sign, () => (movedAt = performance.now()), { passive: true });
}

setInterval(() => {
  const now = performance.now();
  const every = now - movedAt < IDLE_AFTER_MS ? ACTIVE_MS : IDLE_MS;
  if (isSignedOut || document.hidden || now - polledAt < every) return;
  polledAt = now;
  for (const part of document.querySelectorAll("[data-poll]")) {
    // A part in which the person is at work is left as it is.
    if (!part.contains(document.activeElement)) htmx.trigger(part, "poll");
  }
}, 500);

document.addEventListener("htmx:responseError", ({ detail }) => {
  if (detail.xhr.status === 401) signedOut();
  else if (!detail.elt.matches("[data-poll]")) say("no-answer");
});
document.addEventListener("signed-out", signedOut);
document.addEventListener("htmx:sendError", ({ detail }) => detail.elt.matches("[data-poll]") || say("no-answer"));
document.addEventListener("htmx:beforeRequest", () => document.querySelector("main > .cut-off:not(.is-signed-out)")?.remove());

function signedOut() {
  isSignedOut = true;
  const notice = say("signed-out");
  notice?.classList.add("is-signed-out");
  const link = notice?.querySelector("a");
  if (link) link.search = new URLSearchParams({ next: location.pathname + location.search });
}

// Puts it at the top of the page, in the place of what was said before.
function say(what) {
  const words = document.getElementById(what)?.content.firstElementChild.cloneNode(true);
  if (!words) return null;
  document.querySelector("main > .cut-off")?.remove();
  document.querySelector("main").prepend(words);
  return words;
}
