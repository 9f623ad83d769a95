// What a form would do, in words, kept up while it is filled in: <form data-says="id of the words' element">. The server says
// it, in answer to what the button `say` sends.
let last = new AbortController();

document.addEventListener("change", async ({ target }) => {
  const form = target.closest("form[data-says]");
  if (!form) return;
  last.abort();
  last = new AbortController();
  const body = new URLSearchParams(new FormData(form));
  body.set("say", "1");
  try {
    const headers = { "HX-Request": "true" }; // asked for a part of the page: where the session has ended, 401
    const answer = await fetch(form.getAttribute("action") || location.pathname, { method: "POST", body, headers, signal: last.signal });
    if (answer.status === 401) document.dispatchEvent(new Event("signed-out"));
    const said = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(form.dataset.says);
    if (answer.ok && said) document.getElementById(form.dataset.says).replaceChildren(...said.childNodes);
  } catch {
    // Without an answer the button is there.
  }
});
