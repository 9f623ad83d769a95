// The drawer: what htmx put into it is shown beside the list; where it cannot, the link leads to the page.
const drawer = document.getElementById("drawer");

document.addEventListener("htmx:afterSwap", ({ target }) => {
  if (target.id === "drawer-body" && !drawer.open) drawer.showModal();
});

document.addEventListener("htmx:responseError", ({ detail }) => {
  if (detail.target.id === "drawer-body") location.assign(detail.pathInfo.requestPath);
});

drawer?.addEventListener("click", ({ target }) => target === drawer && drawer.close());
