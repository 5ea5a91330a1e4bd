"use strict";

// Sorting: a click on a column's name; rows without a value stay last.
for (const table of document.querySelectorAll(".sortable")) {
  table.querySelectorAll("th button").forEach((button) => {
    const head = button.closest("th");
    const column = [...head.parentNode.children].indexOf(head);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.children[column];
        const text = cell.dataset.value ?? cell.textContent.trim();
        return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
      };
      const compare = (a, b) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
        return up ? order : -order;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    });
  });
}

// The legend: a name hides and shows its line in all charts.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const line of document.querySelectorAll(".line")) {
      if (line.dataset.name === button.dataset.name) line.classList.toggle("off", !shown);
    }
  });
}

// The tip: what lies nearest to the pointer, or where the arrow keys have gone.
const tip = document.getElementById("tip");

function shown(value, form) {
  if (form === "percent") return (100 * value).toFixed(2) + "%";
  if (form !== "bytes") return String(Number(value.toPrecision(4)));
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; Math.abs(value) >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return Number(value.toPrecision(3)) + " " + units[unit];
}

function points(line) {
  return line.querySelector("polyline").getAttribute("points").trim().split(" ").map((p) => p.split(",").map(Number));
}

function read(chart, [px, py]) {
  const [left, right, bottom, top] = chart.dataset.box.split(" ").map(Number);
  const value = (text, share) => {
    const [low, high, log, form] = text.split(" ");
    const [a, b] = [Number(low), Number(high)];
    return shown(log ? a * (b / a) ** share : a + share * (b - a), form);
  };
  return [value(chart.dataset.x, (px - left) / (right - left)), value(chart.dataset.y, (bottom - py) / (bottom - top))];
}

function point(chart, line, at) {
  const [x, y] = read(chart, at);
  tip.textContent = [line.dataset.name, x, y].filter(Boolean).join(" \u00b7 ");
  tip.hidden = false;
  const box = chart.getBoundingClientRect();
  const scale = box.width / chart.viewBox.baseVal.width;
  const left = box.left + at[0] * scale + 12;
  tip.style.left = Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 4)) + "px";
  tip.style.top = box.top + at[1] * scale + 12 + "px";
  chart.classList.add("chosen");
  for (const other of chart.querySelectorAll(".line")) other.classList.toggle("near", other === line);
}

function leave(chart) {
  tip.hidden = true;
  chart.classList.remove("chosen");
}

for (const chart of document.querySelectorAll(".chart")) {
  const lines = () => [...chart.querySelectorAll(".line:not(.off)")];
  let line = 0;
  let step = 0;
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const scale = chart.viewBox.baseVal.width / box.width;
    const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = [Infinity];
    for (const one of lines()) {
      for (const at of points(one)) {
        const distance = Math.hypot(at[0] - px, at[1] - py);
        if (distance < best[0]) best = [distance, one, at];
      }
    }
    if (best[0] < 60) point(chart, best[1], best[2]);
    else leave(chart);
  });
  chart.addEventListener("pointerleave", () => leave(chart));
  chart.addEventListener("blur", () => leave(chart));
  chart.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move || !lines().length) return;
    event.preventDefault();
    line = (line + move[0] + lines().length) % lines().length;
    const all = points(lines()[line]);
    step = Math.max(0, Math.min(step + move[1], all.length - 1));
    point(chart, lines()[line], all[step]);
  });
}
