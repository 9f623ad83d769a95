// Passkeys: <form data-passkey="sign-in | use | make" data-options="id of the element that holds the options as JSON">. The
// browser's answer goes into the field `credential`, and the form is sent. Sign-in asks the form's own address for options.
const fromBase64 = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const toBase64 = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-passkey]");
  if (!form) return;
  event.preventDefault();
  const complaint = form.querySelector("[data-passkey-error]");
  complaint.hidden = true;
  try {
    const { publicKey } = await options(form);
    form.elements.credential.value = JSON.stringify(await answer(form.dataset.passkey, readied(publicKey)));
  } catch {
    // The person said no, or the browser cannot here: which of them it does not tell.
    complaint.hidden = false;
    return;
  }
  form.submit();
});

async function options(form) {
  if (form.dataset.options) return JSON.parse(document.getElementById(form.dataset.options).textContent);
  const said = await fetch(form.action, { headers: { Accept: "application/json" } });
  return (await said.json()).request_options;
}

function readied(publicKey) {
  const ids = (list) => (list ?? []).map((entry) => ({ ...entry, id: fromBase64(entry.id) }));
  const ready = { ...publicKey, challenge: fromBase64(publicKey.challenge) };
  if (ready.user) ready.user = { ...ready.user, id: fromBase64(ready.user.id) };
  if (ready.excludeCredentials) ready.excludeCredentials = ids(ready.excludeCredentials);
  if (ready.allowCredentials) ready.allowCredentials = ids(ready.allowCredentials);
  return ready;
}

async function answer(what, publicKey) {
  if (what === "make") {
    const selection = { residentKey: "required", requireResidentKey: true, userVerification: "required" };
    publicKey.authenticatorSelection = { ...publicKey.authenticatorSelection, ...selection };
  }
  const made = await (what === "make" ? navigator.credentials.create({ publicKey }) : navigator.credentials.get({ publicKey }));
  const response = {};
  for (const part of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (made.response[part]) response[part] = toBase64(made.response[part]);
  }
  if (made.response.getTransports) response.transports = made.response.getTransports();
  return {
    id: made.id,
    rawId: toBase64(made.rawId),
    type: made.type,
    response,
    clientExtensionResults: made.getClientExtensionResults(),
    authenticatorAttachment: made.authenticatorAttachment,
  };
}
