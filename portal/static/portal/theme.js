// The light, dark or system switch. The choice is in force at once, and in a cookie: the server writes it into the next page.
const YEAR_S = 365 * 24 * 3600;

document.addEventListener("change", ({ target }) => {
  if (target.name !== "theme") return;
  document.documentElement.dataset.theme = target.value;
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `sekisho_theme=${target.value}; path=/; max-age=${YEAR_S}; samesite=lax${secure}`;
});
