// The page says all without this; it sorts and filters the variants and shows a point's row.
"use strict";
const table = document.getElementById("variants");
const body = table.tBodies[0];
const rows = [...body.rows];
const heads = [...table.tHead.rows[0].cells];
const values = new Map(rows.map((row) => [row, JSON.parse(row.dataset.values)]));

// Text ascends first; of numbers the better end comes first.
const descending = new Set(["Exact match", "Prompt tok/s", "Decode tok/s"]);

function sort(column, ascending) {
  const of = (row) => values.get(row)[column];
  const missing = (value) => value === null;
  const compare = (one, two) =>
    missing(one) - missing(two) ||
    (typeof one === "string" ? one.localeCompare(two, "en", { numeric: true }) : one - two);
  const sorted = [...rows].sort((a, b) =>
    missing(of(a)) || missing(of(b)) || ascending ? compare(of(a), of(b)) : compare(of(b), of(a))
  );
  body.append(...sorted);
  heads.forEach((head, at) => {
    if (at === column) head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
}

heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  button.addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    sort(column, before ? before === "descending" : !descending.has(button.textContent));
  });
  head.replaceChildren(button);
});

const filter = document.getElementById("filter");
const accurate = document.getElementById("accurate");
function show() {
  const words = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const name = row.dataset.name.toLowerCase();
    const fits = !words.length || words.some((word) => name.includes(word));
    row.hidden = !fits || (accurate.checked && !("accepted" in row.dataset));
    count += !row.hidden;
  }
  document.getElementById("shown").textContent = `${count} of ${rows.length} shown`;
}
filter.addEventListener("input", show);
accurate.addEventListener("input", show);
document.querySelector(".tools").hidden = false;
show();

const tip = document.getElementById("tip");
function rowOf(point) {
  return rows.find((row) => row.dataset.name === point.dataset.point);
}
function point(event, at) {
  const row = rowOf(at);
  const title = document.createElement("strong");
  title.textContent = row.dataset.name;
  const list = document.createElement("dl");
  heads.slice(1).forEach((head, column) => {
    const name = document.createElement("dt");
    const value = document.createElement("dd");
    name.textContent = head.textContent;
    value.textContent = row.cells[column + 1].textContent;
    list.append(name, value);
  });
  tip.replaceChildren(title, list);
  tip.hidden = false;
  const width = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(8, Math.min(event.pageX + 14, width - tip.offsetWidth - 8))}px`;
  tip.style.top = `${event.pageY + 14}px`;
  rows.forEach((one) => one.classList.toggle("pointed", one === row));
}
function leave() {
  tip.hidden = true;
  rows.forEach((one) => one.classList.remove("pointed"));
}
for (const at of document.querySelectorAll("[data-point]")) {
  at.addEventListener("pointerenter", (event) => point(event, at));
  at.addEventListener("pointerleave", leave);
  // The row stands in for the browser's own, later tooltip.
  at.querySelector("title")?.remove();
}
