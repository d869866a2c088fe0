/* The slider through the layers, the notes of single tokens, colours by score, and copying; no library, no network. */
(() => {
  const cards = () => document.querySelector("#cards");
  const lastLayer = () => Number(document.querySelector("#layer")?.max ?? 0);
  const NARROW = 760; // pixels; as in page.css
  let layer = null;
  let shaded = false;

  function nameOf(number) {
    return number < 0 ? "the vision tower" : `layer ${number}`;
  }

  function write(element, number) {
    if (element.textContent !== String(number)) element.textContent = String(number);
  }

  function apply() {
    if (!cards()) return;
    const now = layer ?? lastLayer();
    for (const cell of cards().querySelectorAll("rect")) {
      const gone = cell.dataset.d !== undefined && Number(cell.dataset.d) <= now;
      if (cell.classList.contains("gone") !== gone) cell.classList.toggle("gone", gone);
      const shade = shaded && !gone && cell.dataset.s !== undefined ? cell.dataset.s / 99 : null;
      const fill = shade === null ? "" : `hsl(${230 - 230 * shade} 85% 50% / 0.55)`;
      if (cell.style.fill !== fill) cell.style.fill = fill;
    }
    for (const card of cards().querySelectorAll(".card")) {
      const count = card.querySelector(".seen-now");
      if (!count || !card.querySelector("rect")) continue;
      const loose = (count.dataset.loose || "").split(" ").filter((d) => d === "-" || (d !== "" && Number(d) > now));
      write(count, card.querySelectorAll("rect:not(.gone)").length + loose.length);
      for (const own of card.querySelectorAll("figure .own")) {
        write(own, own.closest("figure").querySelectorAll("rect:not(.gone)").length);
      }
    }
    const name = document.querySelector("#layer-name");
    if (name && name.textContent !== nameOf(now)) name.textContent = nameOf(now);
  }

  function tell(cell) {
    const note = cell.closest(".card")?.querySelector(".token-note");
    if (note) note.textContent = cell.querySelector("title")?.textContent ?? "";
    cell.closest(".picture").querySelectorAll(".pointed").forEach((other) => other.classList.remove("pointed"));
    cell.classList.add("pointed");
  }

  document.addEventListener("input", (event) => {
    if (event.target.id === "layer") {
      layer = Number(event.target.value);
      apply();
    }
  });
  document.addEventListener("pointerover", (event) => {
    if (event.target.tagName === "rect" && event.target.closest("#cards")) tell(event.target);
  });
  document.addEventListener("click", (event) => {
    const target = event.target;
    if (target.tagName === "rect" && target.closest("#cards")) tell(target);
    if (target.id === "shade") {
      shaded = !shaded;
      target.setAttribute("aria-pressed", String(shaded));
      apply();
    }
    if (target.classList?.contains("copy")) {
      const code = target.parentElement.querySelector("code");
      if (!navigator.clipboard) {
        getSelection().selectAllChildren(code); // browsers copy by script on safe connections only
        return;
      }
      navigator.clipboard.writeText(code.textContent).then(() => {
        target.textContent = "Copied";
        setTimeout(() => (target.textContent = "Copy"), 1500);
      });
    }
    if (target.closest("#ask") && innerWidth <= NARROW) {
      document.querySelector("#results").scrollIntoView({ behavior: "smooth" }); // which stand below the controls
    }
  });

  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      apply();
    });
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
