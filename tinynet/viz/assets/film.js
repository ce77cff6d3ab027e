// Replays a recorded training run. #about says what was recorded, #data holds the numbers: deflated, as changes between frames.

const about = JSON.parse(document.getElementById("about").textContent);
const count = about.steps.length;
const $ = id => document.getElementById(id);
const figure = x => x === null || !Number.isFinite(x) ? "–" : String(Number(x.toPrecision(4))).replace("-", "−");
let at = 0, playing = false, colours = {};

// ---------------------------------------------------------------------------------------------------------- unpacking

async function unpack() {
  const bytes = Uint8Array.from(atob($("data").textContent.trim()), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function restore(buffer, about) {
  // the integers of all frames, from their changes
  const size = about.shape.reduce((a, b) => a * b, 1), Kind = about.bits === 8 ? Int8Array : Int16Array;
  const numbers = new Kind(buffer, about.at, size * count);
  for (let i = size; i < numbers.length; i++) numbers[i] += numbers[i - size];
  return { ...about, size, frame: t => numbers.subarray(t * size, (t + 1) * size) };
}

// ------------------------------------------------------------------------------------------------------------ drawing

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "line", "positive", "negative", "zero", "card"]) colours[name] = style.getPropertyValue(`--${name}`).trim();
  for (const name of ["positive", "negative", "zero"]) {
    const hex = colours[name];
    colours[`${name}RGB`] = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
  }
}

function mix(x, out, at, strength = 0.85) {
  // a number from -1 to 1 as a colour: orange, neutral, blue
  const [a, b] = [colours.zeroRGB, x > 0 ? colours.positiveRGB : colours.negativeRGB];
  const t = Math.min(1, Math.abs(x)) * strength;
  for (let k = 0; k < 3; k++) out[at + k] = a[k] + (b[k] - a[k]) * t;
  out[at + 3] = 255;
}

const HUES = [28, 212, 150, 280, 60, 330, 180, 100, 250, 0];
const classColour = (k, light) => `hsl(${HUES[k % HUES.length]} 70% ${light}%)`;

function canvasOf(id, ratio) {
  // the canvas of a panel, sharp on every screen; returns [context, width, height] in CSS pixels
  const canvas = document.querySelector(`#${id} canvas`), width = canvas.clientWidth || 300, height = Math.round(width * ratio);
  const scale = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = "12px system-ui, sans-serif";
  return [context, width, height];
}

function image(values, width, height, paint) {
  const small = new OffscreenCanvas(width, height), context = small.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < values.length; i++) paint(values[i], pixels.data, 4 * i);
  context.putImageData(pixels, 0, 0);
  return small;
}

function name(id, text) {
  document.querySelector(`#${id} canvas`).setAttribute("aria-label", text);
}

function drawDecision(decision) {
  const [context, width, height] = canvasOf("decision", 0.72), [rows, columns] = decision.shape;
  const values = decision.frame(at), [left, right, bottom, top] = about.extent, classes = about.classes;
  const paint = classes === 1 ? (v, out, i) => mix(v / 127, out, i, 0.5) : (v, out, i) => {
    const k = Math.min(classes - 1, Math.floor(v / 127 * classes)), sure = v / 127 * classes - k;
    const h = HUES[k % HUES.length] / 60, c = 0.35 * sure, x = c * (1 - Math.abs(h % 2 - 1)), base = colours.zeroRGB[0] > 128 ? 0.6 : 0.2;
    const rgb = [[c, x, 0], [x, c, 0], [0, c, x], [0, x, c], [x, 0, c], [c, 0, x]][Math.floor(h) % 6];
    rgb.forEach((z, n) => { out[i + n] = 255 * (base + z); });
    out[i + 3] = 255;
  };
  context.imageSmoothingEnabled = classes === 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(image(values, columns, rows, paint), 0, 0, width, height);
  if (classes === 1) {  // the boundary: where the score changes its sign between two neighbours (marching squares)
    context.strokeStyle = colours.ink;
    context.lineWidth = 1.5;
    context.beginPath();
    const X = c => (c + 0.5) / columns * width, Y = r => (r + 0.5) / rows * height;
    for (let r = 0; r + 1 < rows; r++) for (let c = 0; c + 1 < columns; c++) {
      const corner = [[r, c], [r, c + 1], [r + 1, c + 1], [r + 1, c]], ends = [];
      corner.forEach(([r1, c1], k) => {
        const [r2, c2] = corner[(k + 1) % 4], a = values[r1 * columns + c1] + 0.5, b = values[r2 * columns + c2] + 0.5;
        if (a > 0 !== b > 0) ends.push([X(c1 + (c2 - c1) * a / (a - b)), Y(r1 + (r2 - r1) * a / (a - b))]);
      });
      for (let k = 0; k + 1 < ends.length; k += 2) { context.moveTo(...ends[k]); context.lineTo(...ends[k + 1]); }
    }
    context.stroke();
  }
  about.points.forEach(([x, y], i) => {
    const k = about.labels ? about.labels[i] : 0, px = (x - left) / (right - left) * width, py = (top - y) / (top - bottom) * height;
    context.beginPath();
    mark(context, px, py, k);
    context.fillStyle = classes === 1 ? (k ? colours.positive : colours.negative) : classColour(k, 45);
    context.fill();
    context.strokeStyle = colours.card;
    context.lineWidth = 1.2;
    context.stroke();
  });
  name("decision", `Decision map at step ${about.steps[at]}`);
}

function mark(context, x, y, k) {
  // classes are told by shape as well: circle, square, triangle
  if (k % 3 === 0) context.arc(x, y, 4, 0, 7);
  else if (k % 3 === 1) context.rect(x - 3.6, y - 3.6, 7.2, 7.2);
  else { context.moveTo(x, y - 4.6); context.lineTo(x + 4.4, y + 3.4); context.lineTo(x - 4.4, y + 3.4); context.closePath(); }
}

const matrices = stacks => Object.entries(stacks).filter(([, stack]) => stack.shape.length === 2);
const isChain = layers => layers.every(([, { shape }], k) => k === 0 || shape[1] === layers[k - 1][1].shape[0]);

/** Matrices that do not form a chain, as those of attention: each as a map. */
function drawMatrices(layers) {
  const columns = Math.ceil(Math.sqrt(1.5 * layers.length)), rows = Math.ceil(layers.length / columns);
  const [context, width, height] = canvasOf("network", Math.max(0.72, 0.3 * rows)), [w, h] = [width / columns, height / rows];
  context.imageSmoothingEnabled = false;
  layers.forEach(([key, weights], k) => {
    const [out, into] = weights.shape, values = weights.frame(at), [x, y] = [k % columns * w, Math.floor(k / columns) * h];
    let largest = 1;
    for (const v of values) largest = Math.max(largest, Math.abs(v));
    context.drawImage(image(values, into, out, (v, rgba, i) => mix(v / largest, rgba, i)), x + 4, y + 4, w - 8, h - 28);
    context.fillStyle = colours.soft;
    context.textAlign = "left";
    let text = key;
    while (text.length > 4 && context.measureText(text).width > w - 8) text = "…" + text.slice(2);
    context.fillText(text, x + 4, y + h - 8);
  });
}

function drawNetwork(stacks) {
  const layers = matrices(stacks);
  name("network", `${$("what").selectedOptions[0].textContent} of ${layers.length} layers at step ${about.steps[at]}: ` +
    layers.map(([key, { shape }]) => `${key} ${shape[1]} to ${shape[0]}`).join(", "));
  if (!isChain(layers)) return drawMatrices(layers);
  const [context, width, height] = canvasOf("network", 0.72), step = (width - 60) / layers.length;
  const X = k => 30 + k * step, Y = (i, n) => height * (i + 0.5) / n;
  layers.forEach(([, weights], k) => {
    const [out, into] = weights.shape, values = weights.frame(at);
    let largest = 1;
    for (const v of values) largest = Math.max(largest, Math.abs(v));
    if (out * into > 1500) {  // too many lines: the matrix itself
      context.imageSmoothingEnabled = false;
      context.drawImage(image(values, into, out, (v, rgba, i) => mix(v / largest, rgba, i)), X(k) + 8, 8, step - 16, height - 16);
      return;
    }
    for (let i = 0; i < out; i++) for (let j = 0; j < into; j++) {
      const v = values[i * into + j] / largest;
      if (Math.abs(v) < 0.02) continue;
      context.beginPath();
      context.setLineDash(v < 0 ? [5, 3] : []);
      context.strokeStyle = v > 0 ? colours.positive : colours.negative;
      context.globalAlpha = 0.25 + 0.6 * Math.abs(v);
      context.lineWidth = 0.4 + 3 * Math.abs(v);
      context.moveTo(X(k), Y(j, into));
      context.lineTo(X(k + 1), Y(i, out));
      context.stroke();
    }
  });
  context.setLineDash([]);
  context.globalAlpha = 1;
  layers.forEach(([, { shape: [out, into] }], k) => {
    if (out * into > 1500) return;
    for (const [x, n] of [[X(k), into], [X(k + 1), out]])
      for (let i = 0; i < n; i++) {
        context.beginPath();
        context.arc(x, Y(i, n), Math.min(6, height / n / 3), 0, 7);
        context.fillStyle = colours.card;
        context.fill();
        context.strokeStyle = colours.ink;
        context.lineWidth = 1.2;
        context.stroke();
      }
  });
}

function ticks(low, high, logarithmic) {
  // round numbers, or powers of ten, between low and high: at most six
  let step = 10 ** Math.floor(Math.log10((high - low) / 4));
  while ((high - low) / step > 5) step *= step.toExponential().startsWith("2") ? 2.5 : 2;
  if (logarithmic) step = Math.max(1, Math.ceil(step));
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + 1e-9 * step; x += step) found.push(x);
  return found;
}

function curves(id, lines, logarithmic) {
  // lines: [[numbers, colour, dash], …] over the steps, with the present one marked
  const [context, width, height] = canvasOf(id, 0.5), [left, right, top, bottom] = [52, width - 12, 10, height - 26];
  const scale = logarithmic ? Math.log10 : x => x;
  const shown = lines.flatMap(([line]) => line).filter(x => x !== null && (!logarithmic || x > 0)).map(scale);
  let low = Math.min(...shown), high = Math.max(...shown);
  if (!logarithmic) low = Math.min(low, 0);
  if (!(high > low)) [low, high] = [low - 1, low + 1];
  const X = t => left + (right - left) * (count > 1 ? t / (count - 1) : 0.5), Y = x => bottom - (bottom - top) * (x - low) / (high - low);
  context.fillStyle = colours.soft;
  context.strokeStyle = colours.line;
  context.lineWidth = 1;
  context.textAlign = "right";
  for (const x of ticks(low, high, logarithmic)) {
    context.beginPath();
    context.moveTo(left, Y(x));
    context.lineTo(right, Y(x));
    context.stroke();
    context.fillText(logarithmic ? `1e${Math.round(x)}`.replace("-", "−") : figure(Number(x.toFixed(9))), left - 6, Y(x) + 4);
  }
  context.textAlign = "left";
  context.fillText(about.steps[0], left, height - 6);
  context.textAlign = "right";
  context.fillText(`step ${about.steps[count - 1]}`, right, height - 6);
  for (const [line, colour, dash] of lines) {
    context.beginPath();
    let pen = false;
    line.forEach((x, t) => {
      if (x === null || (logarithmic && x <= 0)) pen = false;
      else { pen ? context.lineTo(X(t), Y(scale(x))) : context.moveTo(X(t), Y(scale(x))); pen = true; }
    });
    context.strokeStyle = colour;
    context.setLineDash(dash || []);
    context.lineWidth = 1.8;
    context.lineJoin = "round";
    context.stroke();
    context.setLineDash([]);
  }
  context.strokeStyle = colours.ink;
  context.lineWidth = 1.2;
  context.beginPath();
  context.moveTo(X(at), top);
  context.lineTo(X(at), bottom);
  context.stroke();
  for (const [line, colour] of lines)
    if (line[at] !== null && (!logarithmic || line[at] > 0)) {
      context.beginPath();
      context.arc(X(at), Y(scale(line[at])), 4, 0, 7);
      context.fillStyle = colour;
      context.fill();
      context.strokeStyle = colours.card;
      context.stroke();
    }
}

const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3]];
const lineColour = k => `hsl(${[212, 28, 150, 280, 330, 180][k % 6]} 65% ${colours.zeroRGB[0] > 128 ? 38 : 68}%)`;

function drawSizes() {
  const entries = Object.entries(about.sizes);
  curves("sizes", entries.map(([, line], k) => [line, lineColour(k), DASHES[Math.floor(k / 6) % 4]]), true);
  document.querySelector("#sizes .legend").replaceChildren(...entries.map(([key, line], k) => {
    const item = document.createElement("span"), dash = document.createElement("i");
    dash.style.borderTopColor = lineColour(k);
    dash.style.borderTopStyle = ["solid", "dashed", "dotted"][Math.floor(k / 6) % 3];
    item.append(dash, `${key} ${figure(line[at])}`);
    return item;
  }));
  name("sizes", `Size of the gradient at step ${about.steps[at]}: ` + entries.map(([key, line]) => `${key} ${figure(line[at])}`).join(", "));
}

function makeTiles(id, stacks, big, caption) {
  const box = document.querySelector(`#${id} > div`);
  for (const [key, stack] of Object.entries(stacks)) {
    const [n, rows, columns] = stack.shape, title = document.createElement("p"), grid = document.createElement("div");
    title.className = "note";
    title.textContent = /^\d/.test(key) ? `layer ${key}` : key;
    grid.className = big ? "tiles big" : "tiles";
    stack.tiles = Array.from({ length: n }, (_, i) => {
      const tile = document.createElement("figure"), canvas = document.createElement("canvas"), text = document.createElement("figcaption");
      canvas.width = columns;
      canvas.height = rows;
      canvas.style.aspectRatio = String(columns / rows);
      canvas.style.imageRendering = big ? "pixelated" : "auto";
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${key}, ${caption} ${i}`);
      text.textContent = i;
      tile.append(canvas, text);
      grid.append(tile);
      return canvas;
    });
    box.append(title, grid);
  }
}

function drawTiles(stacks, relative) {
  // of attention each frame is shown in full strength: over many positions every weight is small
  for (const stack of Object.values(stacks)) {
    const [n, rows, columns] = stack.shape, values = stack.frame(at), size = rows * columns;
    const largest = relative ? values.reduce((a, b) => Math.max(a, b), 1) : 127;
    const paint = (v, out, i) => mix(v / largest, out, i);
    stack.tiles.forEach((canvas, i) => {
      const context = canvas.getContext("2d");
      context.drawImage(image(values.subarray(i * size, (i + 1) * size), columns, rows, paint), 0, 0);
    });
  }
}

// --------------------------------------------------------------------------------------------------------- the player

let show = () => {};

function go(frame) {
  at = Math.min(Math.max(frame, 0), count - 1);
  show();
}

function announce() {
  $("live").textContent = $("now").textContent;
}

function play(on) {
  playing = on;
  $("play").textContent = on ? "⏸ Pause" : "▶ Play";
  $("play").setAttribute("aria-pressed", String(on));
  if (!on) return announce();
  if (at === count - 1) at = 0;
  const started = performance.now(), from = at, rate = Math.max(8, count / 12);  // at most twelve seconds from end to end
  requestAnimationFrame(function tick(time) {
    if (!playing) return;
    const wanted = from + Math.max(0, Math.floor((time - started) / 1000 * rate));
    if (wanted !== at) go(wanted);
    if (at < count - 1) requestAnimationFrame(tick);
    else play(false);
  });
}

function stepTo(frame) {
  if (playing) play(false);
  go(frame);
  announce();
}

async function main() {
  const buffer = await unpack(), stacks = {};
  for (const kind of ["parameters", "gradients", "neurons", "attention"])
    stacks[kind] = Object.fromEntries(Object.entries(about[kind]).map(([key, value]) => [key, restore(buffer, value)]));
  const decision = about.decision && restore(buffer, about.decision);
  const some = kind => Object.keys(stacks[kind]).length > 0;
  const network = Object.values(stacks.parameters).some(stack => stack.shape.length === 2);
  $("decision").hidden = !decision;
  $("network").hidden = !network;
  if (!isChain(matrices(stacks.parameters))) $("network").querySelector(".note").textContent =
    "Each matrix as a map, a row for each output. Blue: positive. Orange: negative.";
  $("sizes").hidden = !Object.keys(about.sizes).length;
  $("neurons").hidden = !some("neurons");
  $("attention").hidden = !some("attention");
  $("what").parentElement.hidden = !some("gradients");
  makeTiles("neurons", stacks.neurons, false, "neuron");
  makeTiles("attention", stacks.attention, true, "head");
  $("slider").max = count - 1;

  show = () => {
    $("slider").value = at;
    $("now").textContent = `Step ${about.steps[at]} · loss ${figure(about.loss[at])}`;
    $("slider").setAttribute("aria-valuetext", $("now").textContent);
    if (decision) drawDecision(decision);
    if (network) drawNetwork(stacks[$("what").value]);
    curves("loss", [[about.loss, colours.positive]], false);
    name("loss", `Loss at step ${about.steps[at]}: ${figure(about.loss[at])}; at the start ${figure(about.loss[0])}, at the end ${figure(about.loss[count - 1])}`);
    if (!$("sizes").hidden) drawSizes();
    drawTiles(stacks.neurons, false);
    drawTiles(stacks.attention, true);
  };

  const refresh = () => { readColours(); show(); };
  $("play").addEventListener("click", () => play(!playing));
  $("back").addEventListener("click", () => stepTo(at - 1));
  $("next").addEventListener("click", () => stepTo(at + 1));
  $("slider").addEventListener("input", event => stepTo(Number(event.target.value)));
  $("what").addEventListener("change", () => show());
  window.addEventListener("resize", refresh);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    const keys = { ArrowRight: () => stepTo(at + 1), ArrowLeft: () => stepTo(at - 1), Home: () => stepTo(0), End: () => stepTo(count - 1) };
    if (!event.target.matches("button")) keys[" "] = () => play(!playing);
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  readColours();
  go(0);
  document.body.dataset.ready = "yes";
}

main();
