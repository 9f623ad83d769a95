// Copy buttons: <button data-copies="id of the text's element" data-done="what to say afterwards">.
const DONE_SHOWN_MS = 2000;

document.addEventListener("click", async ({ target }) => {
  const button = target.closest("button[data-copies]");
  if (!button) return;
  if (!(await copyText(document.getElementById(button.dataset.copies)))) return;
  button.toggleAttribute("data-copied", true);
  document.getElementById("announcement").textContent = button.dataset.done;
  setTimeout(() => {
    button.toggleAttribute("data-copied", false);
    document.getElementById("announcement").textContent = "";
  }, DONE_SHOWN_MS);
});

// Leaves the text selected where the browser refuses, so that Ctrl-C is all that is left to do.
async function copyText(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    // No clipboard there: the portal is on plain HTTP, or the person said no.
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}
