// Live parts renew themselves while they are looked at: <div data-poll hx-get="…" hx-trigger="poll" hx-swap="outerHTML">.
// Every 3 s while the person is there, every minute once nothing moved for a while, never while the page is hidden.
const ACTIVE_MS = 3_000;
const IDLE_MS = 60_000;
const IDLE_AFTER_MS = 120_000;
let movedAt = performance.now();
let polledAt = performance.now();

for (const sign of ["pointermove", "keydown", "scroll", "visibilitychange"]) {
  document.addEventListener(sign, () => (movedAt = performance.now()), { passive: true });
}

setInterval(() => {
  const now = performance.now();
  const every = now - movedAt < IDLE_AFTER_MS ? ACTIVE_MS : IDLE_MS;
  if (document.hidden || now - polledAt < every) return;
  polledAt = now;
  for (const part of document.querySelectorAll("[data-poll]")) {
    // A part in which the person is at work is left as it is.
    if (!part.contains(document.activeElement)) htmx.trigger(part, "poll");
  }
}, 500);
