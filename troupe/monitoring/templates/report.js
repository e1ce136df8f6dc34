"use strict";

// The reader's scheme, until the button says otherwise.
document.getElementById("scheme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.scheme = dark ? "light" : "dark";
});

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    getSelection().selectAllChildren(code);
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 1500);
    }
  });
}

// The values under the pointer. Names are set as text, never as markup.
const tip = document.getElementById("tip");

function line(entry) {
  const row = document.createElement("div");
  const [colour, name, value] = entry;
  row.style.setProperty("--c", `var(--${colour})`);
  row.append(name, Object.assign(document.createElement("b"), { textContent: value }));
  return row;
}

for (const area of document.querySelectorAll("[data-hover]")) {
  const stops = JSON.parse(area.dataset.hover);
  const cursor = Object.assign(document.createElement("div"), { className: "cursor", hidden: true });
  area.append(cursor);
  const leave = () => (tip.hidden = cursor.hidden = true);
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const at = (100 * (event.clientX - box.left)) / box.width;
    const stop = stops.reduce((a, b) => (Math.abs(b.p - at) < Math.abs(a.p - at) ? b : a));
    cursor.style.left = `${stop.p}%`;
    tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: stop.t }), ...stop.v.map(line));
    tip.hidden = cursor.hidden = false;
    const wanted = box.left + (stop.p / 100) * box.width + 12;
    const left = wanted + tip.offsetWidth > innerWidth - 8 ? wanted - tip.offsetWidth - 24 : wanted;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, box.top + 8)}px`;
  });
  area.addEventListener("pointerleave", leave);
  addEventListener("scroll", leave, { passive: true });
}
