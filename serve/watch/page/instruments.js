// The panel beside the picture: what the policy thinks, and the figures of the flight.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const KEYS = { left: "←", up: "↑", right: "→", down: "↓", fire: "X" };
const TITLES = { probabilities: "Action probabilities", q_values: "Action values", mean: "Mean action" };
const FORBIDDEN = -1e29; // a mask puts values below it

export class Instruments {
  constructor(element) {
    this.find = (selector) => element.querySelector(selector);
    this.known = "";
  }

  /** Lay the panel out for an environment, if it is another. */
  begin(scene) {
    this.scene = scene;
    const layout = scene.env_id + scene.actions.join();
    if (this.known === layout) return;
    this.known = layout;
    this.bars = scene.actions.map((name, i) => this.bar(name, i));
    this.find(".bars").replaceChildren(...this.bars.map(({ row }) => row));
    const names = scene.moon ? ["Return", "Fuel", "Speed", "Angle", "Altitude", "Step"] : ["Return", "Reward", "Step"];
    this.figures = Object.fromEntries(names.map((name) => [name, document.createElement("dd")]));
    this.find(".readouts").replaceChildren(...names.map((name) => {
      const group = document.createElement("div");
      group.append(Object.assign(document.createElement("dt"), { textContent: name }), this.figures[name]);
      return group;
    }));
  }

  bar(name, i) {
    const row = document.createElement("li");
    const [label, track, value] = ["name", "track", "value"].map((part) =>
      Object.assign(document.createElement("span"), { className: part }));
    const key = Object.entries(KEYS).find(([way]) => !this.scene.bounds.length && this.scene.stick?.[way] === i);
    label.textContent = name;
    if (key) label.append(Object.assign(document.createElement("small"), { textContent: ` ${key[1]}` }));
    const fill = track.appendChild(document.createElement("i"));
    row.classList.toggle("signed", Boolean(this.scene.bounds[i]));
    row.append(label, track, value);
    return { row, fill, value };
  }

  version(version) {
    const told = this.find(".version b");
    if (told.textContent === `${version}`) return;
    told.textContent = version;
    if (!still.matches) told.animate({ color: ["var(--accent)", "var(--text)"] }, 1500);
  }

  note(frame) {
    this.frame = frame;
    const { probabilities, q_values: values, mean: means } = frame.shown ?? {};
    const kinds = Object.keys(TITLES).filter((name) => frame.shown?.[name]);
    if (kinds.length) {
      set(this.find(".bars-title"), kinds.length > 1 ? "Actions" : TITLES[kinds[0]]);
      this.find(".bars").classList.toggle("values", kinds[0] === "q_values");
    }
    (probabilities ?? (values && between(values)))?.forEach((share, i) => {
      if (share !== null) this.bars[i].fill.style.transform = `scaleX(${share})`;
    });
    means?.forEach((mean, i) => {
      if (mean === null) return;
      const [low, high] = this.scene.bounds[i];
      const bounded = low !== null && high !== null;
      const reach = bounded ? (high - low) / 2 || 1 : Math.abs(low ?? high ?? 1) || 1;
      const place = (mean - (bounded ? (low + high) / 2 : 0)) / reach;
      this.bars[i].fill.style.transform = `scaleX(${Math.max(-1, Math.min(1, place))})`;
    });
  }

  /** Bring the figures up to date. */
  write() {
    const { frame, figures } = this;
    const texts = { Return: signed(frame.total, 1), Reward: signed(frame.reward, 2), Step: [frame.t, ""] };
    if (frame.lander) {
      const { y, vx, vy, angle, fuel } = frame.lander;
      texts.Fuel = [fuel.toFixed(1), "points"];
      texts.Speed = [Math.hypot(vx, vy).toFixed(1), "m/s"];
      texts.Angle = [`${signed((angle * 180) / Math.PI, 0)[0]}°`, ""];
      texts.Altitude = [Math.max(0, y - this.scene.moon.rest).toFixed(1), "m"];
    }
    for (const [name, figure] of Object.entries(figures)) set(figure, ...texts[name]);
    this.version(frame.version);
    const { probabilities, q_values: values, mean: means } = frame.shown ?? {};
    const told = this.bars.map((_, i) => percent(probabilities?.[i]) ?? means?.[i]?.toFixed(2));
    (values ? written(values) : told).forEach((value, i) => {
      if (value === undefined) return;
      this.bars[i].value.textContent = value;
      this.bars[i].row.classList.toggle("chosen", Boolean(frame.chosen?.includes(i)));
    });
  }
}

function percent(share) {
  return typeof share === "number" ? `${Math.round(100 * share)}%` : undefined;
}

/** Where values lie from the smallest, 0, to the largest, 1; those that a mask forbids are nowhere. */
function between(values) {
  const allowed = values.filter((value) => value > FORBIDDEN);
  const [low, high] = [Math.min(...allowed), Math.max(...allowed)];
  return values.map((value) => (value > FORBIDDEN ? (value - low) / (high - low || 1) : 0));
}

/** Values in as many decimals as the largest has four digits with. */
function written(values) {
  const size = Math.max(...values.map((value) => (value > FORBIDDEN ? Math.abs(value) : 0)));
  const decimals = Math.max(0, Math.min(4, 3 - Math.floor(Math.log10(size || 1))));
  return values.map((value) => (value > FORBIDDEN ? value.toFixed(decimals).replace("-", "−") : "–"));
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return [Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text, ""];
}

function set(figure, text, unit) {
  const whole = unit ? `${text} ${unit}` : `${text}`;
  if (figure.textContent === whole) return;
  figure.textContent = text;
  if (unit) figure.append(Object.assign(document.createElement("small"), { textContent: ` ${unit}` }));
}
