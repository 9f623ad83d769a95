// The playground: sends the form to the portal, which calls the gateway, and shows the answer as it comes. Without this file
// the form's own POST shows the whole of it.
const ANSWERED = "x-gateway-answer";
const SHOWN_MAX = 200_000; // characters of a raw answer
const form = document.getElementById("playground");
const stop = form?.querySelector("[data-stop]");
const send = form?.querySelector("[data-send]");
const language = document.documentElement.lang;
const running = new Set();

form?.addEventListener("submit", (event) => {
  if (event.submitter && event.submitter.value !== "send") {
    // htmx sends what changes the messages; its button may stand outside of the form.
    if (event.submitter.hasAttribute("hx-post")) event.preventDefault();
    return;
  }
  event.preventDefault();
  if (running.size) return;
  const names = form.elements.compare.value ? ["a", "b"] : ["a"];
  document.querySelector("[data-pane=b]").hidden = names.length === 1;
  for (const name of names) answer(new Pane(name));
});

form?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(send);
});

stop?.addEventListener("click", () => {
  for (const one of running) one.abort("stopped");
});

class Pane {
  constructor(name) {
    this.name = name;
    this.box = document.querySelector(`[data-pane=${name}]`);
    this.raw = this.text = this.reasoning = this.state = "";
    this.tokens = this.pieces = 0;
    this.firstAt = null;
    for (const part of ["raw-box", "reasoning-box", "output", "continue", "figures", "problem", "nothing"]) this.show(part, false);
    for (const part of ["raw", "head", "output", "reasoning", "told"]) this.part(part).textContent = "";
    this.part("raw-box").open = false;
    this.part("alias").textContent = form.elements[name === "b" ? "compare" : "alias"].value;
    this.say("waiting");
    this.sentAt = performance.now();
  }

  part(name) {
    return this.box.querySelector(`[data-part=${name}]`);
  }

  show(name, shown = true) {
    this.part(name).hidden = !shown;
  }

  // state: waiting, running, done, refused, failed, stopped or cut.
  say(state) {
    if (state === this.state) return;
    this.state = state;
    const chip = this.part("state");
    const kind = { done: " chip-ok", refused: " chip-error", failed: " chip-error", stopped: " chip-warn", cut: " chip-error" };
    chip.className = `chip${kind[state] ?? ""}`;
    chip.textContent = this.box.dataset[state];
    chip.hidden = false;
    // Told aloud; of two answers with the alias, so that one knows which.
    document.getElementById("announcement").textContent = `${this.part("alias").textContent}: ${chip.textContent}`;
  }

  complain(problem) {
    this.part("problem").textContent = problem;
    this.show("problem");
    this.say("failed");
  }

  begins({ status, reason, headers }) {
    this.status = status;
    this.requestId = headers.find(([name]) => name === "x-request-id")?.[1];
    this.isStream = headers.some(([name, value]) => name === "content-type" && value.startsWith("text/event-stream"));
    this.part("head").textContent = [`HTTP ${status} ${reason}`, ...headers.map((pair) => pair.join(": "))].join("\n");
    this.show("raw-box");
  }

  takes(text) {
    const had = this.raw.length;
    this.raw += text;
    if (had < SHOWN_MAX) this.part("raw").append(text.slice(0, SHOWN_MAX - had));
  }

  hears(value) {
    if (value.error || value.detail) this.error = value.error ?? { message: value.detail };
    this.tokens = value.usage?.completion_tokens ?? this.tokens;
    for (const choice of value.choices ?? []) {
      const said = choice.delta ?? choice.message ?? {};
      const reasoning = said.reasoning ?? said.reasoning_content ?? "";
      if (said.content || reasoning) this.grows(said.content ?? "", reasoning);
    }
  }

  grows(text, reasoning) {
    this.firstAt ??= performance.now();
    this.pieces += 1;
    this.text += text;
    this.reasoning += reasoning;
    for (const [name, more] of [["output", text], ["reasoning", reasoning]]) {
      if (more) this.part(name).append(more);
    }
    if (text) this.show("output");
    if (reasoning) this.show("reasoning-box");
    if (this.isStream) this.say("running");
    this.counts();
  }

  // As seen from here, until the gateway's own account comes. A piece is a token, more or less, until the count is told.
  counts() {
    const now = performance.now();
    const tokens = this.tokens || this.pieces;
    const whole = (value, digits) => value.toLocaleString(language, { maximumFractionDigits: digits, minimumFractionDigits: digits });
    this.part("first").textContent = `${whole((this.firstAt - this.sentAt) / 1000, 2)} s`;
    this.part("tokens").textContent = whole(tokens, 0);
    this.part("rate").textContent = now - this.firstAt > 200 ? whole((tokens * 1000) / (now - this.firstAt), 1) : "–";
    this.show("figures", this.isStream);
  }

  ends() {
    const isWhole = !this.isStream || this.raw.endsWith("data: [DONE]\n\n");
    if (this.status >= 400 || this.error) {
      this.say(this.status >= 400 && this.status < 500 ? "refused" : "failed");
      this.part("raw-box").open = true;
      this.part("problem").textContent = problemIn(this.error ?? {});
      this.show("problem", this.part("problem").textContent !== "");
    } else this.say(isWhole ? "done" : "cut");
    this.keeps();
  }

  keeps() {
    this.part("answer").value = this.text;
    this.show("continue", this.text !== "");
  }

  // The gateway's account of the call. A call that was stopped is settled in the moment after.
  async tells() {
    if (!this.requestId) return;
    const url = form.dataset.story.replace("00000000-0000-0000-0000-000000000000", this.requestId);
    await htmx.ajax("GET", url, { target: this.part("told"), swap: "innerHTML" });
    if (this.part("told").childElementCount) this.show("figures", false);
  }
}

async function answer(pane) {
  const control = new AbortController();
  begun(control);
  try {
    const body = new FormData(form);
    body.set("pane", pane.name);
    const reply = await fetch(form.dataset.call, { method: "POST", body, signal: control.signal, redirect: "error" });
    if (reply.status === 422) return form.submit(); // the page says at which field
    if (!reply.headers.has(ANSWERED)) return pane.complain(await problemOf(reply));
    pane.begins(JSON.parse(reply.headers.get(ANSWERED)));
    await read(reply.body, pane);
    pane.ends();
  } catch (error) {
    if (control.signal.aborted) {
      pane.say("stopped");
      pane.keeps();
    } else pane.complain(String(error));
  } finally {
    ended(control);
  }
  await pane.tells();
}

// What the gateway's error says, and of which fields.
function problemIn({ message = "", details = [] }) {
  return [message, ...details.map((one) => `${one.param}: ${one.message}`)].join(" ");
}

async function problemOf(reply) {
  const isOurs = (reply.headers.get("content-type") ?? "").startsWith("application/json");
  return isOurs ? (await reply.json()).problem : `${reply.status} ${reply.statusText}`;
}

// Events are parted by an empty line, and a piece of the body may end anywhere.
async function read(body, pane) {
  let rest = "";
  for await (const text of pieces(body)) {
    pane.takes(text);
    if (!pane.isStream) continue;
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") hear(pane, line.slice("data: ".length));
    }
  }
  if (!pane.isStream) hear(pane, pane.raw);
}

async function* pieces(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) yield piece.value;
}

function hear(pane, json) {
  try {
    pane.hears(JSON.parse(json));
  } catch {
    // No JSON: it is shown as it came.
  }
}

function begun(control) {
  running.add(control);
  stop.hidden = false;
  send.disabled = true;
}

function ended(control) {
  running.delete(control);
  if (running.size) return;
  const wasFocused = document.activeElement === stop;
  stop.hidden = true;
  send.disabled = false;
  if (wasFocused) send.focus();
}
