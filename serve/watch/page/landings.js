// The last landings: a list, and the line of their returns.

const LISTED = 30;
const CHARTED = 60;
const GOOD = { landed: "good", crashed: "bad", "flew away": "bad" };
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, MARGIN] = [300, 64, 7];

export class Landings {
  constructor(element) {
    this.list = element.querySelector(".list");
    this.trend = element.querySelector(".trend");
    this.tally = element.querySelector(".tally");
    this.none = element.querySelector(".none");
    this.flown = new Map(); // lists, by policy and environment: returns of different ones are not compared
  }

  /** Show the landings of this policy in this environment, and add to them from now on. */
  of({ policy, env_id }) {
    const key = JSON.stringify([policy, env_id]);
    if (!this.flown.has(key)) this.flown.set(key, []);
    this.all = this.flown.get(key);
    this.show();
  }

  /** Add one; says how it went: good, bad or plain. */
  add(landing) {
    const mark = GOOD[landing.outcome] ?? "plain";
    this.all.push({ ...landing, mark });
    if (this.all.length > CHARTED) this.all.shift();
    this.show();
    return mark;
  }

  show() {
    const rows = this.all.slice(-LISTED).reverse().map(row);
    this.list.replaceChildren(...(rows.length ? rows : [this.none]));
    const last = this.all.slice(-10);
    const mean = last.reduce((sum, { total }) => sum + total, 0) / last.length;
    const landed = last.filter((one) => one.outcome === "landed").length;
    const lands = last.some((one) => one.mark !== "plain");
    this.tally.textContent = last.length ? `last ${last.length}: mean ${number(mean)}${lands ? `, ${landed} landed` : ""}` : "";
    if (last.length) this.draw();
    else this.trend.replaceChildren();
  }

  draw() {
    const totals = this.all.map(({ total }) => total);
    const [low, high] = [Math.min(0, ...totals), Math.max(0, ...totals, 1)];
    const x = (i) => (totals.length < 2 ? WIDTH / 2 : MARGIN + (i * (WIDTH - 2 * MARGIN)) / (totals.length - 1));
    const y = (total) => HEIGHT - MARGIN - ((total - low) / (high - low)) * (HEIGHT - 2 * MARGIN);
    const line = totals.map((total, i) => `${x(i)},${y(total)}`).join(" ");
    const zero = part("line", { class: "zero", x1: 0, x2: WIDTH, y1: y(0), y2: y(0) });
    // Dots are lines of no length: their round ends stay round when the picture is stretched.
    const dots = this.all.map(({ total, mark }, i) => part("path", { class: `dot ${mark}`, d: `M${x(i)} ${y(total)}h0` }));
    this.trend.replaceChildren(zero, part("polyline", { class: "line", points: line }), ...dots);
    this.trend.setAttribute("aria-label", `Returns of the last ${totals.length} landings, ${number(Math.min(...totals))} to ${number(Math.max(...totals))}`);
  }
}

function row({ seed, total, steps, outcome, version, pilot, target, mark }) {
  const item = document.createElement("li");
  item.className = mark;
  const asked = target === null ? "" : `for ${number(target)} · `;
  const flown = { policy: `v${version}`, you: "you", both: `you and v${version}` }[pilot];
  for (const [name, text] of [["total", number(total)], ["outcome", outcome], ["rest", `${asked}${steps} steps · seed ${seed} · ${flown}`]]) {
    item.append(Object.assign(document.createElement("span"), { className: name, textContent: text }), " ");
  }
  return item;
}

function number(value) {
  const rounded = Math.round(value);
  return `${rounded < 0 ? "−" : rounded > 0 ? "+" : ""}${Math.abs(rounded)}`;
}

function part(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
