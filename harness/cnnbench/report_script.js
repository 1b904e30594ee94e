"use strict";
// Headers of data tables become buttons that sort. Without this script the tables stand as they are.
(() => {
  const live = document.getElementById("sorted");
  const cellOf = (row, place) => row.cells[place];
  const orderOf = (cell) => {
    const given = cell ? cell.dataset.order : undefined;
    return given === undefined || given === "" ? null : Number(given);
  };
  for (const table of document.querySelectorAll(".sheet table")) {
    const body = table.tBodies[0];
    const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
    if (!body || body.rows.length < 2) continue;
    const original = Array.from(body.rows);
    const sortBy = (place, direction) => {
      const numeric = original.some((row) => orderOf(cellOf(row, place)) !== null);
      const compare = (a, b) => {
        const left = cellOf(a, place), right = cellOf(b, place);
        if (!numeric) return direction * left.textContent.localeCompare(right.textContent, "en", { numeric: true });
        const x = orderOf(left), y = orderOf(right);
        if (x === null || y === null) return (x === null) - (y === null);
        return direction * (x - y);
      };
      body.append(...(direction ? original.slice().sort(compare) : original));
    };
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      const name = head.textContent.replace(/\s+/g, " ").trim();
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const after = { none: "ascending", ascending: "descending", descending: "none" }[before];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", after);
        sortBy(place, { none: 0, ascending: 1, descending: -1 }[after]);
        live.textContent = after === "none" ? "In the order of the suite" : `Sorted by ${name}, ${after}`;
      });
    });
    table.classList.add("sortable");
  }
})();
