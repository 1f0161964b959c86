// Comfort only: every form works without this. A form is sent in the background, the content is exchanged, what was
// said is announced, and the focus stays where it was.
"use strict";
(() => {
  const parser = new DOMParser();
  let latest = 0;

  const show = async (url, options, focus, move) => {
    const turn = ++latest;
    document.documentElement.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { credentials: "same-origin", ...options });
      const page = parser.parseFromString(await answer.text(), "text/html");
      if (turn !== latest && !options.body) return;
      const content = page.getElementById("content");
      if (!content) return location.reload();
      document.title = page.title;
      document.getElementById("content").replaceWith(document.adoptNode(content));
      document.getElementById("said").replaceChildren(...page.getElementById("said").childNodes);
      if (move) history.pushState(null, "", answer.url);
      const next = (focus && document.getElementById(focus)) || content.querySelector("h1");
      if (next) next.focus({ preventScroll: Boolean(focus && next.id === focus) });
    } catch {
      location.reload();
    } finally {
      document.documentElement.removeAttribute("aria-busy");
    }
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.hasAttribute("data-live")) return;
    event.preventDefault();
    const fields = new FormData(form, event.submitter);
    const focus = event.submitter ? event.submitter.id : document.activeElement && document.activeElement.id;
    const pairs = new URLSearchParams(fields);
    if (form.method === "post") return show(form.action, { method: "POST", body: pairs }, focus, false);
    const url = new URL(form.action);
    url.search = pairs;
    return show(url, {}, focus, true);
  });

  document.addEventListener("input", (event) => {
    const dial = event.target;
    if (dial.type === "range") dial.form.querySelector("output").value = Math.round(100 * dial.value) + "%";
  });
  document.addEventListener("change", (event) => {
    if (event.target.type === "range") event.target.form.requestSubmit();
  });
  window.addEventListener("popstate", () => location.reload());
})();
