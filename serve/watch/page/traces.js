// The picture of any other environment: each component of the observation as a line over the last steps.

import { fit, palette } from "./canvas.js";

const STEPS = 300;
const MOST_LINES = 12; // components; more could not be read
const scheme = matchMedia("(prefers-color-scheme: light)");

export class TracePicture {
  constructor(canvas, scene) {
    Object.assign(this, { canvas, scene, ctx: canvas.getContext("2d"), rows: [] });
  }

  add({ t, observation }) {
    if (t === 0) this.rows = [];
    this.rows.push(observation.slice(0, MOST_LINES));
    if (this.rows.length > STEPS) this.rows.shift();
  }

  draw() {
    const { canvas, ctx, rows } = this;
    if (this.light !== scheme.matches) [this.light, this.colours] = [scheme.matches, palette()];
    fit(canvas);
    const ratio = canvas.width / (canvas.clientWidth || 1);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const sky = ctx.createLinearGradient(0, 0, 0, height);
    sky.addColorStop(0, this.colours["sky-top"]);
    sky.addColorStop(1, this.colours["sky-middle"]);
    ctx.fillStyle = sky;
    ctx.fillRect(0, 0, width, height);
    const lines = rows[0]?.length ?? 0;
    const each = (height - 44) / Math.max(lines, 1);
    for (let i = 0; i < lines; i++) this.drawLine(i, 34 + i * each, each, width);
  }

  drawLine(i, top, height, width) {
    const { ctx, rows, colours } = this;
    const values = rows.map((row) => row[i]);
    const reach = Math.max(...values.map(Math.abs), 1e-3);
    const y = (value) => top + height / 2 - (value / reach) * height * 0.4;
    const [left, right] = [16, width - 84];
    ctx.strokeStyle = colours.axis;
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(left, y(0));
    ctx.lineTo(right, y(0));
    ctx.stroke();
    ctx.strokeStyle = colours[`line-${i % 4}`];
    ctx.lineWidth = 2;
    ctx.lineJoin = "round";
    ctx.beginPath();
    values.forEach((value, step) => ctx.lineTo(left + ((right - left) * step) / (STEPS - 1), y(value)));
    ctx.stroke();
    ctx.font = "13px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    ctx.fillStyle = colours["on-sky"];
    ctx.fillText(`o${i}`, right + 12, y(0));
    ctx.fillText(values.at(-1).toFixed(2), right + 34, y(0));
  }
}
