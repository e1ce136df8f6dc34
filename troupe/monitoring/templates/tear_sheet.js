
// Charts answer to the arrow keys as they do to the pointer.
for (const area of document.querySelectorAll("[data-hover]")) {
  const stops = JSON.parse(area.dataset.hover);
  const keys = { ArrowLeft: (i) => i - 1, ArrowRight: (i) => i + 1, Home: () => 0, End: () => stops.length - 1 };
  let at = -1;
  area.tabIndex = 0;
  area.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    at = Math.min(Math.max(keys[event.key](at), 0), stops.length - 1);
    const box = area.getBoundingClientRect();
    const clientX = box.left + (stops[at].p / 100) * box.width;
    area.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY: box.top }));
  });
  area.addEventListener("blur", () => area.dispatchEvent(new PointerEvent("pointerleave")));
}
