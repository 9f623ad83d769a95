// The keyboard: `/` to the filter, `g` then a letter to a room (<a data-letter>), `?` for help (<dialog id="help">). And where
// one is: the open room in sight.
const CHORD_MS = 1500;
let wentAt = -Infinity;

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea, [contenteditable], dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.timeStamp - wentAt < CHORD_MS) {
    wentAt = -Infinity;
    const door = document.querySelector(`a[data-letter="${CSS.escape(event.key)}"]`);
    if (!door) return;
    event.preventDefault();
    door.click();
  } else if (event.key === "g") {
    wentAt = event.timeStamp;
  } else if (event.key === "/") {
    const filter = document.querySelector("main input[type=search], main form[method=get] :is(input, select)");
    if (!filter) return;
    event.preventDefault();
    filter.focus();
    filter.select?.();
  } else if (event.key === "?") {
    document.getElementById("help")?.showModal();
  }
});

// Where the rooms or tabs are a row that scrolls, the one that is open is in sight.
for (const open of document.querySelectorAll(":is(.rooms, .tabs) [aria-current]")) {
  const row = open.parentElement;
  row.scrollLeft = open.offsetLeft - row.offsetLeft - (row.clientWidth - open.offsetWidth) / 2;
}

document.addEventListener("click", ({ target }) => {
  if (target.closest("[data-opens-help]")) document.getElementById("help").showModal();
});
