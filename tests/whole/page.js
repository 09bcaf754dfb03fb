// Runs in the page around the frame and leaves what it sees there as JSON.
const frame = document.querySelector("iframe").contentWindow;
const page = frame.document;
const all = (query) => [...page.querySelectorAll(query)].filter((e) => e.getClientRects().length > 0);
const luminance = (colour) => {
  const [red, green, blue] = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
    const value = part / 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = frame.getComputedStyle(at).backgroundColor;
    if (!/^rgba\(.*, 0\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const texts = all("h1, h2, p, th, td, dt, dd, li, small, .lane .name, .tile b, .track b, .axis span");
const outside = all(".tile, .track i").filter((element) => {
  const [own, around] = [element.getBoundingClientRect(), element.parentElement.getBoundingClientRect()];
  return own.left < around.left - 1 || own.right > around.right + 2 || own.bottom > around.bottom + 2;
});
const shown = {
  background: luminance(frame.getComputedStyle(page.body).backgroundColor),
  contrast: Math.min(...texts.map((e) => contrast(frame.getComputedStyle(e).color, behind(e)))),
  overflow: Math.max(0, page.documentElement.scrollWidth - frame.innerWidth),
  treemap: all(".treemap").map((e) => e.classList[1]).join(),
  outside: outside.length,
  tiles: all(".tile").length,
  bars: all(".track i").length,
  fetched: frame.performance.getEntriesByType("resource").length,
};
document.body.innerHTML = "<pre>" + JSON.stringify(shown) + "</pre>";
