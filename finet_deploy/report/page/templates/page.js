"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);
  const status = by("status");
  root.classList.add("js");

  // Sorting: a button in each header. Figures by their value, text by its letters; what is missing stays last.
  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.v ?? cell.textContent.trim();
    const number = Number(value);
    return value === "" || value === "–" ? null : Number.isFinite(number) ? number : value;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === typeof b ? a.localeCompare(b, "en", { numeric: true })
        : typeof a === "number" ? -1 : 1;
  const sort = (table, header, column) => {
    const down = header.getAttribute("aria-sort") === "ascending"
      || (header.getAttribute("aria-sort") !== "descending" && header.classList.contains("num"));
    const sign = down ? -1 : 1;
    for (const other of all("thead th", table)) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [key(row, column), row]);
    keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b));
    body.append(...keyed.map(([, row]) => row));
    status.textContent = `Sorted by ${header.textContent.trim()}, ${down ? "descending" : "ascending"}.`;
  };
  for (const table of all("table[data-sortable]")) {
    all("thead th", table).forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header, column));
      header.append(button);
      header.setAttribute("aria-sort", "none");
    });
  }

  // Filters: lines by network, device, runtime and state; a device's columns and a runtime's cards as wholes.
  const fits = (element, name, value) => !value || element.dataset[name] === undefined || element.dataset[name] === value;
  const filter = () => {
    const find = by("find").value.trim().toLowerCase();
    const [device, runtime, state] = ["device", "runtime", "state"].map((id) => by(id).value);
    let shown = 0;
    let total = 0;
    for (const row of all("table[data-filtered] > tbody > tr")) {
      const keep = row.cells[0].textContent.toLowerCase().includes(find)
        && fits(row, "device", device) && fits(row, "runtime", runtime) && fits(row, "state", state);
      row.hidden = !keep;
      if (row.closest("table").id !== "all-rows") continue;
      total += 1;
      shown += keep ? 1 : 0;
    }
    for (const cell of all("th[data-device], td[data-device]")) cell.hidden = !fits(cell, "device", device);
    for (const card of all("article.card")) {
      const columns = all("th[data-device]", card);
      card.hidden = !fits(card, "device", device) || !fits(card, "runtime", runtime)
        || (columns.length > 0 && columns.every((column) => column.hidden));
    }
    choose();
    status.textContent = `${shown} of ${total} rows shown.`;
  };

  // One axis at a time.
  const choose = () => {
    const axis = by("axis");
    if (axis === null) return;
    for (const card of all("[data-axis]")) card.hidden = card.dataset.axis !== axis.value;
  };
  by("axis")?.addEventListener("change", () => {
    choose();
    status.textContent = `Plots of images per second against ${by("axis").value}.`;
  });

  for (const id of ["device", "runtime", "state"]) by(id).addEventListener("change", filter);
  by("find").addEventListener("input", filter);
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    for (const id of ["find", "device", "runtime", "state"]) by(id).value = "";
    filter();
  });

  // Colours: the choice is kept where the browser keeps anything for a file.
  const theme = by("theme");
  const paint = (value) => {
    if (value === "light" || value === "dark") root.dataset.theme = value;
    else delete root.dataset.theme;
  };
  try { theme.value = localStorage.getItem("finet-deploy-theme") ?? ""; } catch { /* nothing is kept: as the system */ }
  paint(theme.value);
  theme.addEventListener("change", () => {
    paint(theme.value);
    try { localStorage.setItem("finet-deploy-theme", theme.value); } catch { /* for this visit only */ }
  });
  filter();
})();
