// Steps through a graph: forward, then backward, and again with other numbers. PAGE (the graph) and RULES (the
// derivative table, translated from Python) stand in the script before this one. No derivative is written here.

// -------------------------------------------------------------------------------------------------------- arithmetic

function erf(x) { // the one function of the derivative table that Math lacks; Abramowitz and Stegun (1964), 7.1.6, 7.1.14
  const a = Math.abs(x);
  if (!(a < 6)) return a >= 6 ? Math.sign(x) : NaN;
  if (a < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= 2 * x * x / (2 * n + 1);
    return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
  }
  let tail = a;
  for (let n = 80; n > 0; n--) tail = a + n / 2 / tail;
  return Math.sign(x) * (1 - Math.exp(-a * a) / tail / Math.sqrt(Math.PI));
}

const { nodes, digits: DIGITS } = PAGE;  // of a page that is not live: boxes, with what they show from which step on
if (PAGE.live) PAGE.leaves = PAGE.leaves.map((x) => ({ nan: NaN, inf: Infinity, "-inf": -Infinity })[x] ?? x); // not in JSON
const ROOT = nodes.length - 1;
const USES = nodes.map(() => 0); // how often a node is an operand
if (PAGE.live) nodes.forEach(({ inputs }) => inputs.forEach((j) => { USES[j] += 1; }));
const isConstant = (i) => nodes[i].role === "constant";

/** The number of every node, given those of the leaves; node `forced`, if any, is held at `value`. */
function forward(leaves, forced = -1, value = 0) {
  const data = [];
  nodes.forEach((node, i) => {
    data[i] = i === forced ? value : node.op === null ? leaves[i] : RULES[node.op].value(...node.inputs.map((j) => data[j]));
  });
  return data;
}

/** The chain rule: the gradient of every node, and each contribution to it, in the order of `explain`. */
function backward(data) {
  const grad = nodes.map(() => null), counted = nodes.map(() => 0), contributions = [];
  grad[ROOT] = 1;
  for (let i = ROOT; i >= 0; i--) {
    const { op, inputs } = nodes[i];
    const operands = inputs.map((j) => data[j]);
    inputs.forEach((j, place) => {
      if (isConstant(j)) return;
      const local = RULES[op].derivatives[place](...operands, data[i]);
      const amount = grad[i] * local, before = grad[j];
      grad[j] = before === null ? amount : before + amount;
      contributions.push({ node: i, place, to: j, local, incoming: grad[i], amount, before, total: grad[j],
        number: ++counted[j], uses: USES[j] });
    });
  }
  return { grad, contributions };
}

function evaluate(leaves) {
  const data = forward(leaves);
  return { data, ...backward(data) };
}

/** (f(x + h) − f(x − h)) / 2h at a node, everything after it computed again. */
function finiteDifference(leaves, i) {
  const x = forward(leaves)[i], h = 1e-5 * Math.max(1, Math.abs(x));
  return (forward(leaves, i, x + h)[ROOT] - forward(leaves, i, x - h)[ROOT]) / (2 * h);
}

// ---------------------------------------------------------------------------------------------------- numbers as text

/** A number with so many significant digits, as Python reads it; halves are rounded to even, as Python does. */
function numeral(x, digits = 4) {
  if (Number.isNaN(x)) return "nan";
  if (!Number.isFinite(x)) return x > 0 ? "inf" : "-inf";
  if (Math.abs(x) < 1e6 && Number.isInteger(x)) return String(x + 0);
  let [mantissa, exponent] = x.toExponential(digits - 1).split("e");
  const [long] = x.toExponential(60).split("e");
  const cut = long.replace("-", "").slice(digits + 1);
  if (/^50*$/.test(cut) && Number(long.replace("-", "")[digits === 1 ? 0 : digits]) % 2 === 0) {
    mantissa = long.slice(0, digits + 1 + (x < 0)); // the tie goes down
  }
  exponent = Number(exponent);
  const tidy = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (exponent < -4 || exponent >= digits) return `${tidy(mantissa)}e${exponent}`;
  return tidy(Number(`${mantissa}e${exponent}`).toFixed(Math.max(0, digits - 1 - exponent)));
}

const atom = (text) => (text.startsWith("-") ? `(${text})` : text);
const figure = (x, digits = 4) => numeral(x, digits).replaceAll("-", "−");
const signed = (x) => (x > 0 ? "+" : "") + figure(x);
const signOf = (x) => (x > 0 ? "positive" : x < 0 ? "negative" : "zero");

/** How many digits the operands need for a line to come out right when computed from what it shows. */
function digitsFor(compute, result) {
  const shown = (n) => numeral(compute((x) => Number(numeral(x, n))));
  return DIGITS.slice(0, -1).find((n) => shown(n) === numeral(result)) ?? DIGITS.at(-1);
}

// ----------------------------------------------------------------------------------------- sentences, as `explain` has

/** A formula of the page with texts in place of its operands; ⟪a⟫ stands alone in a call, where no parentheses are due. */
function filled(formula, texts) {
  return formula.replace(/⟦(\w)⟧|⟪(\w)⟫/g, (_, inside, alone) =>
    inside ? texts[inside] : texts[alone].replace(/^\((-.*)\)$/, "$1"));
}

const nameOf = (i) => (isConstant(i) ? atom(nodes[i].name) : nodes[i].name);
const d = (name) => (name.includes(" ") ? `d(${name})` : `d${name}`);
const effect = (i) => `${d(nodes[ROOT].name)}/${d(nodes[i].name)}`;
const keyed = (values) => Object.fromEntries(values.map((value, i) => ["abcdefgh"[i], value]));

/** What a step says, in parts that are equal: ["v1", "a * b", "(-2) * 3", "-6"]. */
function partsOf(step, state) {
  if (step.sentence) return [step.sentence];
  if (step.kind === "start") return ["The leaves of the graph; everything else is computed from them."];
  if (step.kind === "seed") return [effect(ROOT), "1"];
  if (step.kind === "forward") return computed(step.node, state.data);
  return received(state.contributions[step.contribution], state.data);
}

function computed(i, data) {
  const { op, inputs, name } = nodes[i], operands = inputs.map((j) => data[j]);
  const n = digitsFor((cut) => RULES[op].value(...operands.map(cut)), data[i]);
  const figures = operands.map((x) => atom(numeral(x, n)));
  return [name, filled(RULES[op].written, keyed(inputs.map(nameOf))), filled(RULES[op].written, keyed(figures)),
    numeral(data[i])];
}

function received(contribution, data) {
  const { node, place, to, incoming, before, total } = contribution, { op, inputs } = nodes[node];
  const operands = inputs.map((j) => data[j]), rule = RULES[op], derivative = rule.derivatives[place];
  const n = digitsFor((cut) => (before === null ? 0 : cut(before)) + cut(incoming) *
    derivative(...operands.map(cut), cut(data[node])), total);
  const soFar = before === null ? "" : `${atom(numeral(before, n))} + `;
  const formula = rule.formulas[place][rule.which[place](...operands, data[node])];
  const names = { ...keyed(inputs.map(nameOf)), y: nameOf(node), g: effect(node) };
  const figures = { ...keyed(operands.map((x) => atom(numeral(x, n)))), y: atom(numeral(data[node], n)),
    g: atom(numeral(incoming, n)) };
  const local = `∂${d(nodes[node].name).slice(1)}/∂${d(nodes[to].name).slice(1)}`;
  return [effect(to) + (contribution.uses > 1 ? ` (${contribution.number} of ${contribution.uses})` : ""),
    `${soFar}${effect(node)} * ${local}`, soFar + filled(formula, names), soFar + filled(formula, figures),
    numeral(total)];
}

/** What to say where a number has stopped being one. */
function trouble(step, state) {
  if (step.kind === "forward" && PAGE.live) {
    const { op, inputs } = nodes[step.node], operands = inputs.map((j) => state.data[j]);
    if (!Number.isFinite(state.data[step.node]) && operands.every(Number.isFinite)) {
      return `${op} has no finite value at ${operands.map((x) => figure(x)).join(", ")}.`;
    }
  } else if (step.kind === "contribution") {
    const contribution = state.contributions[step.contribution];
    const operands = nodes[contribution.node].inputs.map((j) => state.data[j]);
    if (!Number.isFinite(contribution.local) && operands.every(Number.isFinite)) {
      return `${nodes[contribution.node].op} has no finite derivative at ${operands.map((x) => figure(x)).join(", ")}.`;
    }
  }
  return "";
}

// --------------------------------------------------------------------------------------------------------- the steps

/** Start, each operation forward, then the seed and each contribution backward; a graph of Tensors brings its own sentences. */
function stepsOf() {
  if (!PAGE.live) return [{ kind: "start" }, ...PAGE.steps];
  const steps = [{ kind: "start" }];
  nodes.forEach((node, i) => node.op !== null && steps.push({ kind: "forward", node: i }));
  steps.push({ kind: "seed", node: ROOT });
  backward(forward(PAGE.leaves)).contributions.forEach((contribution, i) =>
    steps.push({ kind: "contribution", contribution: i, node: contribution.node, to: contribution.to,
      place: contribution.place, last: contribution.number === contribution.uses }));
  return steps;
}

const steps = stepsOf();
const reached = nodes.map(() => 0); // the step at which a node has its number
steps.forEach((step, k) => { if (PAGE.live && step.kind === "forward") reached[step.node] = k; });
const turn = steps.findIndex((step) => step.kind === "seed" || step.kind === "backward"); // where the backward pass begins
const original = PAGE.live ? evaluate(PAGE.leaves) : null;
let leaves = PAGE.live ? [...PAGE.leaves] : [], state = original, at = 0;
let guessing = null, score = [0, 0]; // the step whose sign is asked for; right answers, and all

/** The gradients that are known at step k: {total, complete}. */
function known(k) {
  const grads = nodes.map(() => null);
  for (const step of steps.slice(0, k + 1)) {
    if (step.kind === "seed") grads[ROOT] = { total: 1, complete: true };
    if (step.kind === "contribution") {
      grads[step.to] = { total: state.contributions[step.contribution].total, complete: step.last };
    }
  }
  return grads;
}

// ------------------------------------------------------------------------------------------------------------ drawing

const $ = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const create = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

function toneOf(grad, largest) {
  if (grad === null || !Number.isFinite(grad)) return "none";
  if (grad === 0 || !largest) return "zero";
  const size = Math.abs(grad) / largest;
  return (grad > 0 ? "positive" : "negative") + (size >= 0.5 ? 4 : size >= 0.1 ? 3 : size >= 0.01 ? 2 : 1);
}

/** Show the picture as it is at step k: what is known, and what is being computed. */
function paint(k) {
  const step = steps[k], grads = known(k);
  const largest = Math.max(0, ...state.grad.filter(Number.isFinite).map(Math.abs));
  const active = new Set(), lit = new Set();
  if (step.kind === "forward") nodes[step.node].inputs.forEach((j, place) => { active.add(j); lit.add(`${step.node}.${place}`); });
  if (step.kind === "forward") lit.add(`${step.node}.out`);
  if (step.kind === "contribution") { lit.add(`${step.node}.${step.place}`); active.add(step.to); }
  if (step.node !== undefined) active.add(step.node);
  nodes.forEach((node, i) => {
    const ready = reached[i] <= k, grad = grads[i];
    const data = ready ? figure(state.data[i]) : "";
    const gradient = grad === null ? "" : signed(grad.total) + (grad.complete ? "" : " + …");
    const tone = grad ? toneOf(grad.total, largest) : "none";
    for (const box of all(`[data-node="${i}"]`)) {
      box.setAttribute("class", `node number ${node.role} ${isConstant(i) ? "constant" : tone}` +
        (ready ? "" : " waiting") + (active.has(i) ? " active" : "") + (state.data[i] !== original.data[i] ? " changed" : ""));
      const [first, second] = box.querySelectorAll(".value");
      first.textContent = data || "?";
      if (second) second.textContent = gradient || "–";
      const words = [`${node.role} ${node.name}`.trim(), ready ? `data ${data}` : "not computed yet"];
      if (second && k >= turn && turn > 0) words.push(gradient ? `gradient ${gradient}` : "no gradient yet");
      box.setAttribute("aria-label", words.join(", ") + node.mistakes);
    }
    for (const op of all(`[data-op="${i}"]`)) {
      op.classList.toggle("active", step.node === i && step.kind !== "seed");
      op.classList.toggle("waiting", !ready);
    }
  });
  const shown = new Map();
  for (const s of steps.slice(0, k + 1)) {
    if (s.kind === "contribution") shown.set(`${s.node}.${s.place}`, state.contributions[s.contribution]);
  }
  for (const edge of all("[data-edge]")) {
    const key = edge.dataset.edge, contribution = shown.get(key);
    edge.setAttribute("class", `edge ${contribution ? toneOf(contribution.amount, largest) : "none"}` +
      (lit.has(key) ? " active" : "") + (lit.has(key) && step.kind !== "forward" ? " back" : "") +
      (reached[key.split(".")[0]] > k ? " waiting" : ""));
    const label = edge.querySelector(".product");
    if (!label) continue;
    label.textContent = contribution ? `${figure(contribution.local, 3)} × ${figure(contribution.incoming, 3)}` : "";
  }
}

/** The same for a page that computes nothing: each box shows its fields from the step on at which they are known. */
function paintStatic(k) {
  const step = steps[k];
  nodes.forEach((node, i) => {
    const ready = node.forward <= k, back = node.backward !== null && node.backward <= k;
    const tone = back || !/^(positive|negative|zero)/.test(node.tone) ? node.tone : "none";
    const texts = node.fields.map(([, text, gradient]) => gradient ? (back ? text : "–") : ready ? text : "?");
    for (const box of all(`[data-node="${i}"], [data-op="${i}"]`)) {
      box.setAttribute("class", `node ${node.look} ${node.role.split(" ")[0]} ${tone}` + (ready ? "" : " waiting") +
        (step.boxes?.includes(i) ? " active" : ""));
      box.querySelectorAll(".value").forEach((value, n) => { value.textContent = texts[n]; });
      const description = node.fields.map(([key], n) =>
        texts[n] === "?" || texts[n] === "–" ? "" : `${key} ${texts[n]}`.trim());
      const words = [`${node.role} ${node.name}`.trim(), ready ? "" : "not computed yet", ...description];
      if (back || node.look !== "op") box.setAttribute("aria-label", words.filter(Boolean).join(", ") + node.mistakes);
    }
  });
  for (const edge of all("[data-edge]")) {
    const lit = step.edges?.includes(Number(edge.dataset.edge));
    edge.setAttribute("class", "edge none" + (lit ? " active" : "") + (lit && step.kind === "backward" ? " back" : ""));
  }
}

/** The sentence of step k, one equality per line, and which step it is. */
function tell(k) {
  const step = steps[k], parts = partsOf(step, state), back = turn > 0 && k >= turn;
  const count = turn > 0 ? turn : steps.length;
  $("#phase").textContent = k === 0 ? "Start" : back ? `Backward ${k - turn + 1} of ${steps.length - turn}`
    : `Forward ${k} of ${count - 1}`;
  $("#phase").className = back ? "phase backward" : "phase";
  $("#equation").replaceChildren(...parts.map((part, i) => {
    const line = create("span", i === parts.length - 1 && i > 0 ? "line result" : "line");
    if (i > 0) line.append(create("span", "equals", i === 1 ? " = " : " = "));
    line.append(create("bdi", i === 0 ? "target" : "", part));
    return line;
  }));
  $("#equation").classList.toggle("plain", parts.length === 1);
  $("#trouble").textContent = trouble(step, state);
  $("#live").textContent = `${$("#phase").textContent}. ${parts.join(" = ")}. ${$("#trouble").textContent}`.trim();
  $("#step").value = k;
  $("#step").setAttribute("aria-valuetext", $("#phase").textContent);
  $("#count").textContent = `${k} / ${steps.length - 1}`;
  for (const id of ["first", "back"]) $(`#${id}`).setAttribute("aria-disabled", k === 0);
  for (const id of ["next", "last"]) $(`#${id}`).setAttribute("aria-disabled", k === steps.length - 1);
  all("#transcript button").forEach((button) => {
    const here = Number(button.dataset.step) === k;
    here ? button.setAttribute("aria-current", "step") : button.removeAttribute("aria-current");
    if (here && $("#transcript").open) keepInSight(button, $("#transcript ol").parentElement);
  });
}

/** Scroll a box, and never the page, until the element is in sight. */
function keepInSight(element, box) {
  const [a, b] = [element.getBoundingClientRect(), box.getBoundingClientRect()];
  if (a.top < b.top) box.scrollTop += a.top - b.top - 8;
  if (a.bottom > b.bottom) box.scrollTop += a.bottom - b.bottom + 8;
  if (a.left < b.left) box.scrollLeft += a.left - b.left - 24;
  if (a.right > b.right) box.scrollLeft += a.right - b.right + 24;
}

function show(k) {
  at = Math.max(0, Math.min(steps.length - 1, k));
  guessing = null;
  $("#ask").hidden = true;
  PAGE.live ? paint(at) : paintStatic(at);
  tell(at);
  const target = String(steps[at].to ?? steps[at].node ?? steps[at].boxes?.at(-1));
  const boxes = all(".sheet .node.active").filter(inSight);
  boxes.sort((a, b) => (a.dataset.node === target) - (b.dataset.node === target));
  boxes.forEach((box) => keepInSight(box, box.closest(".sheet"))); // the one that the step is about comes last
  if (at === 0) all(".sheet").forEach((sheet) => sheet.scrollTo(0, 0));
}

const inSight = (element) => element.getClientRects().length > 0;

/** Whether there is more of the picture than its sheet shows; then it can be shown whole, but smaller. */
function offerFit() {
  const sheet = all(".sheet").find(inSight), fitted = $(".stage").classList.contains("fitted");
  $("#fit").parentElement.hidden = !fitted && sheet.scrollWidth <= sheet.clientWidth;
}

/** Go on by one step; where a gradient would become known, ask for its sign first, if that was wanted. */
function next() {
  if (guessing !== null) return show(guessing); // shown without an answer
  const step = steps[at + 1];
  if (!step) return;
  if ($("#guess")?.checked && step.kind === "contribution" && step.last) {
    show(at);
    guessing = at + 1;
    $("#question").textContent = `What is the sign of ${effect(step.to)}?`;
    $("#verdict").textContent = "";
    $("#ask").hidden = $("#signs").hidden = false;
    $("#live").textContent = $("#question").textContent;
    $("#signs button").focus();
  } else {
    show(at + 1);
  }
}

function answer(sign) {
  if (guessing === null) return;
  const k = guessing, truth = signOf(state.contributions[steps[k].contribution].total), right = sign === truth;
  score = [score[0] + right, score[1] + 1];
  const description = truth === "zero" ? "zero: increasing it changes nothing" :
    `${truth}: increasing it makes ${nodes[ROOT].name} ` +
    (truth === "positive" ? "larger" : "smaller");
  show(k);
  $("#verdict").textContent = `${right ? "✓ Right" : "✗ Wrong"}, it is ${description}. ${score[0]} of ${score[1]} right.`;
  $("#verdict").className = right ? "verdict right" : "verdict wrong";
  $("#ask").hidden = false;
  $("#live").textContent = `${$("#verdict").textContent} ${$("#live").textContent}`;
  $("#question").textContent = "";
  $("#signs").hidden = true;
  $("#next").focus();
}

// ------------------------------------------------------------------------------------------------------------ what if

/** The table of all numbers: leaves can be edited; each gradient stands beside a finite difference. */
function setTable() {
  $("#numbers tbody").replaceChildren(...nodes.map((node, i) => {
    const row = create("tr", ""), name = create("th", ""), now = create("td", "number");
    name.scope = "row";
    name.append(create("bdi", "", isConstant(i) ? "constant" : node.name));
    if (node.op === null) {
      const field = Object.assign(create("input", ""), { type: "number", step: "any", value: PAGE.leaves[i], id: `leaf-${i}` });
      const reach = 2 * Math.max(1, Math.abs(PAGE.leaves[i]));
      const slider = Object.assign(create("input", ""), { type: "range", min: PAGE.leaves[i] - reach,
        max: PAGE.leaves[i] + reach, step: reach / 100, value: PAGE.leaves[i] });
      field.setAttribute("aria-label", `value of ${node.name}`);
      slider.setAttribute("aria-label", `slide ${node.name}`);
      field.addEventListener("input", () => edit(i, field.value.trim() === "" ? NaN : Number(field.value), field, slider));
      slider.addEventListener("input", () => edit(i, Number(slider.value), field, slider));
      now.append(field, slider);
    } else {
      now.append(create("span", "now"));
    }
    now.append(create("small", "was"));
    const gradient = create("td", "gradient");
    gradient.append(create("span", "now"), create("small", "was"));
    row.append(name, now, gradient, create("td", "difference"));
    return row;
  }));
}

function edit(i, x, field, slider) {
  const valid = Number.isFinite(x);
  field.setAttribute("aria-invalid", !valid);
  $("#edited").textContent = valid ? "" : `${nodes[i].name} needs a number.`;
  if (!valid) return;
  leaves[i] = x;
  if (document.activeElement !== field) field.value = x;
  if (document.activeElement !== slider) slider.value = x;
  again();
}

/** Everything once more, forward and backward, with the numbers of now. */
function again() {
  state = evaluate(leaves);
  const was = original.data[ROOT], is = state.data[ROOT], changed = leaves.some((x, i) => x !== PAGE.leaves[i]);
  $("#edited").textContent = changed ? `${nodes[ROOT].name} was ${figure(was)}, is now ${figure(is)}` +
    (Number.isFinite(is) ? "" : ": an operation is not defined at these numbers") + "." : "";
  $("#reset").disabled = !changed;
  document.body.classList.toggle("changed", changed);
  all("#numbers tbody tr").forEach((row, i) => {
    const [now, gradient, difference] = row.querySelectorAll("td");
    const line = (cell, is, was, text) => {
      const shown = cell.querySelector(".now");
      if (shown) shown.textContent = text(is);
      cell.querySelector(".was").textContent = Object.is(is, was) || is === was ? "" : `was ${text(was)}`;
    };
    line(now, state.data[i], original.data[i], figure);
    if (isConstant(i)) return;
    line(gradient, state.grad[i], original.grad[i], signed);
    gradient.className = `gradient ${signOf(state.grad[i])}`;
    const check = finiteDifference(leaves, i), near = Math.abs(check - state.grad[i]) <= 1e-4 * Math.max(1, Math.abs(check));
    difference.textContent = `${signed(check)} ${near ? "✓" : "≠"}`;
    difference.title = near ? "the finite difference agrees" : "the finite difference differs: a kink, a jump, or too steep for it";
  });
  setTranscript();
  show(at);
}

function reset() {
  leaves = [...PAGE.leaves];
  all("#numbers tbody tr").forEach((row, i) => row.querySelectorAll("input").forEach((input) => {
    input.value = PAGE.leaves[i];
    input.removeAttribute("aria-invalid");
  }));
  again();
}

// --------------------------------------------------------------------------------------------- transcript and controls

function setTranscript() {
  const items = steps.slice(1).map((step, n) => {
    const item = create("li", step.kind), button = create("button", "", partsOf(step, state).join(" = "));
    button.type = "button";
    button.dataset.step = n + 1;
    button.addEventListener("click", () => show(n + 1));
    item.append(button);
    return item;
  });
  $("#transcript ol").replaceChildren(...items);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=number], input[type=range]")) return;
  const { target } = event;
  if (target.matches(".sheet, .scroll") && target.scrollWidth > target.clientWidth) return; // arrows scroll what has the focus
  const keys = { ArrowRight: next, ArrowLeft: () => show(guessing !== null ? at : at - 1), Home: () => show(0),
    End: () => show(steps.length - 1), "+": () => answer("positive"), "=": () => answer("positive"), "-": () => answer("negative"),
    "0": () => answer("zero") };
  if (event.key in keys) {
    event.preventDefault();
    keys[event.key]();
  }
}

function start() {
  $("#step").max = steps.length - 1;
  $("#step").addEventListener("input", () => show(Number($("#step").value)));
  const buttons = { first: () => show(0), back: () => show(guessing !== null ? at : at - 1), next,
    last: () => show(steps.length - 1), reset };
  for (const [id, action] of Object.entries(buttons)) $(`#${id}`)?.addEventListener("click", action);
  all("#signs button").forEach((button) => button.addEventListener("click", () => answer(button.dataset.sign)));
  document.addEventListener("keydown", pressed);
  $("#fit").addEventListener("change", () => {
    $(".stage").classList.toggle("fitted", $("#fit").checked);
    show(at);
  });
  window.addEventListener("resize", offerFit);
  if (PAGE.live) {
    setTable();
    again();
  } else {
    all(".live").forEach((part) => part.remove()); // there is nothing to compute
    setTranscript();
    show(0);
  }
  offerFit();
}

if (typeof document !== "undefined") start();
