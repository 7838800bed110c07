"use strict";
// Sorting, filtering, tips and the theme. Without script the page shows the same, in the file's order.

const number = (text) => {
  const found = text.match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : null;
};

const sortBy = (table, place, head) => {
  const down = head.getAttribute("aria-sort") === "descending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "ascending" : "descending");
  const sign = down ? 1 : -1;
  const key = (row) => row.cells[place].textContent.trim();
  const rows = [...table.tBodies[0].rows];
  const numeric = place > 0 && !("text" in head.dataset) && rows.every((row) => key(row) === "" || number(key(row)) !== null);
  rows.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numeric ? number(a) - number(b) : a.localeCompare(b, "en", { numeric: true }));
  });
  table.tBodies[0].append(...rows);
};

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(table, place, head));
    head.replaceChildren(button);
  });
}

for (const tools of document.querySelectorAll(".tools")) {
  const rows = [...tools.parentElement.querySelector("table.trials").tBodies[0].rows];
  const what = tools.dataset.rows;
  const [input, select, output] = ["input", "select", "output"].map((name) => tools.querySelector(name));
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = (select.value && row.dataset.status !== select.value) || !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    const all = `${rows.length} ${what}${rows.length === 1 ? "" : "s"}`;
    output.textContent = shown === rows.length ? all : `${shown} of ${all}`;
  };
  input.addEventListener("input", filter);
  select.addEventListener("change", filter);
  tools.hidden = false;
  filter();
}

// A link leads into a part that is folded, too.
const unfold = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();

const tip = document.getElementById("tip");
const showTip = (event) => {
  const mark = event.target.closest?.(".drawing [aria-roledescription][aria-label]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.getAttribute("aria-label");
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY - box.height - 12)}px`;
};
document.addEventListener("pointermove", showTip);
document.addEventListener("pointerdown", showTip); // a finger has no other way
document.addEventListener("keydown", (event) => { tip.hidden ||= event.key === "Escape"; });

const theme = document.getElementById("theme");
const dark = () =>
  (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const say = () => { theme.textContent = dark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  say();
});
theme.hidden = false;
say();
