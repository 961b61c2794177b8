"use strict";
(() => {
  document.documentElement.classList.add("has-js");
  const hidden = new Set();
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  for (const button of document.querySelectorAll("[data-toggle]")) {
    button.addEventListener("click", () => {
      const series = Number(button.dataset.toggle);
      const hide = !hidden.has(series);
      if (hide) hidden.add(series); else hidden.delete(series);
      button.setAttribute("aria-pressed", String(!hide));
      for (const line of document.querySelectorAll(`[data-series="${series}"]`)) {
        line.style.display = hide ? "none" : "";
      }
    });
  }

  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const chart = JSON.parse(svg.dataset.chart);
    const cursor = svg.querySelector(".cursor");
    for (const title of svg.querySelectorAll("title")) title.remove(); // the tip says it
    const leave = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const span = Math.max(chart.last - chart.first, 1);
      const raw = chart.first + (x - chart.left) / (chart.right - chart.left) * span;
      const epoch = Math.min(chart.last, Math.max(chart.first, Math.round(raw)));
      const rows = [];
      for (const line of chart.lines) {
        const at = line.e.indexOf(epoch);
        if (at >= 0 && !hidden.has(line.s)) rows.push([line.v[at], line.label]);
      }
      if (!rows.length) { leave(); return; }
      rows.sort((a, b) => a[0] - b[0]);
      tip.textContent = `epoch ${epoch}\n` + rows.map(([v, l]) => `${v.toPrecision(4)}  ${l}`).join("\n");
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6);
      const top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 6);
      tip.style.left = `${Math.max(4, left)}px`;
      tip.style.top = `${Math.max(4, top)}px`;
      const at = chart.left + (epoch - chart.first) / span * (chart.right - chart.left);
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      cursor.style.visibility = "visible";
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", leave);
  }

  const unfold = () => {
    const folded = location.hash && document.getElementById(location.hash.slice(1))?.querySelector("details");
    if (folded) folded.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  for (const table of document.querySelectorAll("table")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy as Markdown";
    (table.closest(".scroll") ?? table).after(button);
    button.addEventListener("click", async () => {
      const line = (row) => `| ${[...row.cells].map((cell) => cell.textContent.trim().replaceAll("|", "\\|")).join(" | ")} |`;
      const [head, ...rows] = [...table.rows];
      const rule = `|${" --- |".repeat(head.cells.length)}`;
      await navigator.clipboard.writeText([line(head), rule, ...rows.map(line)].join("\n"));
      button.textContent = "Copied";
    });
  }

  const key = (cell) => cell.dataset.key ?? cell.textContent.trim();
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column] ? key(row.cells[column]) : "", row]);
        const empty = (text) => text === "" || text === "–";
        rows.sort(([a], [b]) => {
          if (empty(a) || empty(b)) return empty(a) - empty(b); // no value stays last
          const x = Number(a), y = Number(b);
          const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }
})();
