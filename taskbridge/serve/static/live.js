// Shows whether the page is live. The sections themselves are updated by htmx and its extension for server-sent events.
(() => {
  const show = isLive => {
    const place = document.getElementById("live");
    place.classList.toggle("on", isLive);
    place.firstElementChild.textContent = isLive ? "live" : "not live";
  };
  document.body.addEventListener("htmx:sseOpen", () => show(true));
  document.body.addEventListener("htmx:sseError", () => show(false));
  document.body.addEventListener("htmx:sseClose", () => show(false));
  // A decision that is being made stays open, whatever is updated meanwhile.
  document.body.addEventListener("htmx:sseBeforeMessage", event => {
    if (event.target.querySelector("details[open]")) event.preventDefault();
  });
})();
