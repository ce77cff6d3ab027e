// What is wrong with a page for people who do not see well, use no mouse, or hold a phone: a list of sentences.
(() => {
  const found = [];
  const seen = e => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const told = e => `${e.tagName.toLowerCase()}${e.id && "#" + e.id} "${(e.textContent || "").trim().slice(0, 30)}"`;
  const named = e => (e.getAttribute("aria-label") || [...(e.labels || [])].map(label => label.textContent).join("") ||
    (e.matches("input, select") ? "" : e.textContent)).trim();

  for (const e of document.querySelectorAll("button, input, select, a, summary, [role=img], [tabindex='0']"))
    if (seen(e) && !named(e)) found.push(`${told(e)} has no name`);
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) found.push(`the id ${id} is there twice`);
  if (!document.documentElement.lang) found.push("the page has no language");
  if (document.querySelectorAll("h1").length !== 1) found.push("the page has not one heading");
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page is wider than the screen");
  for (const e of document.querySelectorAll("button, select, input:not([type=checkbox])"))
    if (seen(e) && !e.closest(".hidden") && e.getBoundingClientRect().height < 24) found.push(`${told(e)} is too small`);

  // contrast of text, as WCAG 2 defines it
  const rgb = text => text.match(/[\d.]+/g).map(Number);
  const channel = x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const ground = e => {
    const shape = e.closest("svg .node")?.querySelector("path, ellipse"); // text in a picture stands on its box
    if (shape) return rgb(getComputedStyle(shape).fill);
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if ((colour[3] ?? 1) > 0.99) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const e = text.parentElement;
    if (!text.data.trim() || e.closest("title, desc, script, style, .hidden, :disabled, [aria-disabled=true]") || !seen(e)) continue;
    const [a, b] = [light(rgb(getComputedStyle(e)[e.closest("svg") ? "fill" : "color"])), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${told(e)} has a contrast of ${ratio.toFixed(2)}`);
  }
  return found;
})()
