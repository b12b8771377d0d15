// The return that is asked for: a slider, and the return so far on its way there.

const SENT = 100; // ms between two wishes while the slider is moved
const POINTS = 600; // drawn at the most
const SHORT = 100; // steps that the chart is wide at the least
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, MARGIN] = [300, 72, 6];

export class Course {
  /**
   * @param {HTMLElement} element
   * @param {(target: number) => void} onTarget another return is asked for
   */
  constructor(element, onTarget) {
    this.element = element;
    this.find = (selector) => element.querySelector(selector);
    Object.assign(this, { onTarget, wanted: null, target: null, points: [] });
    this.slider = this.find("input");
    this.slider.oninput = () => {
      this.wanted = this.slider.valueAsNumber;
      this.label(this.wanted);
    };
    this.slider.onpointerup = () => this.slider.blur(); // so that arrow keys fly again
  }

  /** Begin an episode; of a policy that acts for no return in particular there is nothing to see. */
  begin({ target }) {
    this.element.hidden = !target;
    Object.assign(this, { target, points: [] });
    if (!target) return;
    this.step = 10 ** Math.floor(Math.log10((target.most - target.least) / 200));
    this.slider.step = this.step;
    this.slider.min = Math.floor(target.least / this.step) * this.step;
    this.slider.max = Math.ceil(target.most / this.step) * this.step;
    if (this.wanted === null) this.slider.value = target.asked;
    this.label(this.wanted ?? target.asked);
  }

  /** A return that is worth seeing beside this one. */
  other() {
    const half = (this.target.asked + this.target.least) / 2;
    return Math.round(half / this.step) * this.step;
  }

  add({ t, total, target }) {
    if (!this.target) return;
    if (this.points.length >= POINTS) this.points = this.points.filter((_, i) => i % 2 === 0);
    this.points.push({ t, total, target });
  }

  label(target) {
    this.find("output").textContent = this.number(target);
    this.slider.setAttribute("aria-valuetext", this.number(target));
  }

  /** Bring the chart up to date, and tell what is asked for now. */
  write(now) {
    if (!this.target || !this.points.length) return;
    if (this.wanted !== null && now - (this.sent ?? 0) > SENT) {
      this.onTarget(this.wanted);
      [this.sent, this.wanted] = [now, null];
    }
    const { points } = this;
    const last = points.at(-1);
    const all = points.flatMap(({ total, target }) => [total, target]);
    const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
    const x = (t) => (t * (WIDTH - 2 * MARGIN)) / Math.max(SHORT, last.t);
    const y = (value) => HEIGHT - MARGIN - ((value - low) / (high - low || 1)) * (HEIGHT - 2 * MARGIN);
    const flown = points.map(({ t, total }) => `${x(t)},${y(total)}`);
    // Asked for until the next step, and from the last one on to the end of the chart.
    const asked = points.map(({ target }, i) => `${x(points[i - 1]?.t ?? 0)},${y(target)} ${x(points[i].t)},${y(target)}`);
    const ahead = `${WIDTH},${y(last.target)}`;
    this.find("svg").replaceChildren(
      part("polygon", { class: "still", points: [...flown, ...asked.toReversed().map(reversed)].join(" ") }),
      part("line", { class: "zero", x1: 0, x2: WIDTH, y1: y(0), y2: y(0) }),
      part("polyline", { class: "asked", points: [...asked, ahead].join(" ") }),
      part("polyline", { class: "flown", points: flown.join(" ") }),
      part("path", { class: "dot", d: `M${x(last.t)} ${y(last.total)}h0` }), // a line of no length: its ends stay round
    );
    const [so, still] = [this.number(last.total), this.number(last.target - last.total)];
    this.find("svg").setAttribute("aria-label", `Return so far ${so}, asked for ${this.number(last.target)}`);
    this.find(".so-far").textContent = so;
    this.find(".to-come").textContent = still;
  }

  number(value) {
    const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(this.step))));
    const text = Math.abs(value).toFixed(digits);
    return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
  }
}

/** Two points of a line in text, the second first. */
function reversed(line) {
  return line.split(" ").reverse().join(" ");
}

function part(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
