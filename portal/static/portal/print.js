// <button data-print>: the browser's own dialog. Without scripts there is the browser's menu, and no button.
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) window.print();
});
