"use strict";
(() => {
  const folded = "unfolded sections";
  for (const id of JSON.parse(sessionStorage.getItem(folded) ?? "[]")) {
    const details = document.getElementById(id)?.querySelector("details");
    if (details) details.open = true;
  }
  addEventListener("pagehide", () => {
    const open = [...document.querySelectorAll("section:has(> details[open])")];
    sessionStorage.setItem(folded, JSON.stringify(open.map((section) => section.id)));
  });
  const look = async () => {
    try {
      const version = await (await fetch("version")).text();
      if (version !== document.body.dataset.version) { location.reload(); return; }
    } catch {
      document.querySelector("#ended").hidden = false;
    }
    setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
})();
