// LunarLander's picture: the backdrop, and on it the lander, its legs, flames, trail, shadow and dust.

import { drawBackdrop } from "./backdrop.js";
import { clear, fit, palette } from "./canvas.js";

export const VIEW = 14.4; // metres in view from the bottom: the world's height and some sky, as flights begin at its top
const TAU = 2 * Math.PI;
const MOST_TRAIL = 1200;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const scheme = matchMedia("(prefers-color-scheme: light)");

export class MoonPicture {
  constructor(canvas, scene) {
    Object.assign(this, { canvas, scene, moon: scene.moon, ctx: canvas.getContext("2d"), backdrop: null });
    this.trail = [];
    this.dust = [];
    this.power = { main: 0, side: 0 };
  }

  /** Note a frame's place; frames may come more often than pictures. */
  add({ t, lander }) {
    if (t === 0) this.trail = [];
    this.trail.push([lander.x, lander.y]);
    if (this.trail.length > MOST_TRAIL) this.trail.shift();
  }

  /** Draw a state of the lander. */
  draw(lander) {
    const { canvas, ctx } = this;
    if (fit(canvas) || !this.backdrop || this.light !== scheme.matches) this.prepare();
    if (!canvas.width) return;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.drawImage(this.backdrop, 0, 0);
    this.useMetres(ctx);
    // Engines fire for single steps: an eased power reads as a flame, not as a flicker.
    for (const engine of ["main", "side"]) this.power[engine] += (lander[engine] - this.power[engine]) * 0.4;
    this.drawTrail();
    this.drawShadow(lander);
    this.drawDust(lander);
    this.drawFlames(lander);
    this.drawLegs(lander);
    this.drawBody(lander);
    if (lander.y > VIEW + 0.3) this.drawMarker(lander);
  }

  prepare() {
    this.light = scheme.matches;
    this.colours = palette();
    this.backdrop = document.createElement("canvas");
    Object.assign(this.backdrop, { width: this.canvas.width, height: this.canvas.height });
    const ctx = this.backdrop.getContext("2d");
    this.useMetres(ctx);
    drawBackdrop(ctx, this.moon, this.scene.seed, this.moon.size[0], VIEW, this.colours);
  }

  useMetres(ctx) {
    const scale = this.canvas.width / this.moon.size[0];
    ctx.setTransform(scale, 0, 0, -scale, 0, VIEW * scale);
  }

  /** y of the ground under x. */
  ground(x) {
    const terrain = this.moon.terrain;
    const i = Math.max(0, terrain.findIndex(([end]) => end >= x) - 1);
    const [[x1, y1], [x2, y2]] = [terrain[i], terrain[Math.min(i + 1, terrain.length - 1)]];
    return x2 === x1 ? y1 : y1 + ((y2 - y1) * (x - x1)) / (x2 - x1);
  }

  drawTrail() {
    const { ctx, trail, colours } = this;
    ctx.strokeStyle = colours.trail;
    ctx.lineWidth = 0.045;
    ctx.lineCap = "round";
    ctx.setLineDash([0.02, 0.16]);
    ctx.beginPath();
    for (const [x, y] of trail) ctx.lineTo(x, y);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  drawShadow({ x, y }) {
    const { ctx, colours } = this;
    const height = Math.max(0, y - this.ground(x));
    const slope = Math.atan(this.ground(x + 0.5) - this.ground(x - 0.5));
    ctx.globalAlpha = Math.max(0, 0.5 - height / 14);
    ctx.fillStyle = colours.shadow;
    ctx.beginPath();
    ctx.ellipse(x, this.ground(x) - 0.03, 0.75 + height * 0.05, 0.1, slope, 0, TAU);
    ctx.fill();
    ctx.globalAlpha = 1;
  }

  drawDust({ x, y }) {
    const { ctx, dust, colours } = this;
    const height = y - this.ground(x);
    if (!still.matches && this.power.main > 0.3 && height < 3 && dust.length < 60) {
      const way = Math.random() < 0.5 ? -1 : 1;
      dust.push({ x: x + way * 0.2, y: this.ground(x) + 0.05, vx: way * (0.03 + 0.07 * Math.random()), vy: 0.03 * Math.random(), age: 0 });
    }
    ctx.fillStyle = colours.dust;
    for (const grain of dust) {
      grain.x += grain.vx;
      grain.y += grain.vy;
      grain.vy -= 0.0006;
      grain.age += 0.025;
      ctx.globalAlpha = Math.max(0, 0.4 * (1 - grain.age));
      ctx.beginPath();
      ctx.arc(grain.x, grain.y, 0.06 + 0.22 * grain.age, 0, TAU);
      ctx.fill();
    }
    ctx.globalAlpha = 1;
    this.dust = dust.filter((grain) => grain.age < 1);
  }

  drawFlames({ x, y, angle }) {
    const { main, side } = this.power;
    this.at(x, y, angle, () => {
      if (main > 0.05) this.drawFlame(0, -0.44, -Math.PI / 2, 1.5 * main, 0.19);
      // As in the physics: the engine that tilts the lander to the left blows to the right.
      if (Math.abs(side) > 0.08) {
        const way = -Math.sign(side);
        this.drawFlame(way * 0.53, 0.3, way > 0 ? 0 : Math.PI, 0.62 * Math.abs(side), 0.08);
      }
    });
  }

  drawFlame(x, y, direction, length, width) {
    const { ctx, colours } = this;
    const reach = length * (still.matches ? 1 : 0.85 + 0.3 * Math.random());
    this.at(x, y, direction, () => {
      ctx.globalCompositeOperation = colours["flame-blend"];
      for (const [part, wide, colour] of [[1, 1, "flame-outer"], [0.68, 0.7, "flame-middle"], [0.38, 0.42, "flame-core"]]) {
        const fill = ctx.createLinearGradient(0, 0, reach * part, 0);
        fill.addColorStop(0, colours[colour]);
        fill.addColorStop(1, clear(colours[colour]));
        ctx.fillStyle = fill;
        ctx.beginPath();
        ctx.moveTo(0, width * wide * 0.75);
        ctx.bezierCurveTo(reach * part * 0.3, width * wide * 1.3, reach * part * 0.7, width * wide * 0.5, reach * part, 0);
        ctx.bezierCurveTo(reach * part * 0.7, -width * wide * 0.5, reach * part * 0.3, -width * wide * 1.3, 0, -width * wide * 0.75);
        ctx.fill();
      }
    });
  }

  drawLegs({ x, y, angle, legs, contacts }) {
    const { ctx, colours, moon } = this;
    const foot = Math.min(...moon.leg.map((point) => point[1]));
    legs.forEach(([legX, legY, legAngle], i) => {
      const way = i === 0 ? 1 : -1; // the first leg is the one on the right
      const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
      ctx.strokeStyle = colours.strut;
      ctx.lineWidth = 0.06;
      ctx.lineCap = "round";
      ctx.beginPath();
      for (const [hipX, hipY] of [[way * 0.5, -0.28], [way * 0.54, 0.02]]) {
        ctx.moveTo(x + hipX * cos - hipY * sin, y + hipX * sin + hipY * cos);
        ctx.lineTo(legX, legY);
      }
      ctx.stroke();
      this.at(legX, legY, legAngle, () => {
        ctx.fillStyle = colours.leg;
        ctx.beginPath();
        moon.leg.forEach(([px, py]) => ctx.lineTo(px * 0.8, py));
        ctx.fill();
        ctx.strokeStyle = contacts[i] ? colours.contact : colours.leg;
        ctx.lineWidth = 0.08;
        ctx.beginPath();
        ctx.moveTo(-0.17, foot + 0.02);
        ctx.lineTo(0.17, foot + 0.02);
        ctx.stroke();
      });
    });
  }

  drawBody({ x, y, angle }) {
    const { ctx, colours, moon } = this;
    this.at(x, y, angle, () => {
      ctx.fillStyle = colours.nozzle;
      ctx.beginPath();
      for (const [px, py] of [[-0.14, -0.3], [0.14, -0.3], [0.22, -0.46], [-0.22, -0.46]]) ctx.lineTo(px, py);
      ctx.fill();
      const hull = ctx.createLinearGradient(-0.5, 0.5, 0.5, -0.35);
      hull.addColorStop(0, colours["hull-light"]);
      hull.addColorStop(1, colours["hull-dark"]);
      ctx.fillStyle = hull;
      ctx.beginPath();
      for (const [px, py] of moon.body) ctx.lineTo(px, py);
      ctx.closePath();
      ctx.fill();
      ctx.save();
      ctx.clip();
      ctx.fillStyle = colours.foil;
      ctx.fillRect(-0.7, -0.4, 1.4, 0.4);
      ctx.fillStyle = colours["foil-line"];
      for (const px of [-0.34, -0.02, 0.3]) ctx.fillRect(px, -0.4, 0.04, 0.4);
      ctx.restore();
      ctx.strokeStyle = colours["hull-edge"];
      ctx.lineWidth = 0.045;
      ctx.lineJoin = "round";
      ctx.stroke();
      ctx.fillStyle = colours.window;
      ctx.beginPath();
      ctx.arc(0, 0.27, 0.145, 0, TAU);
      ctx.fill();
      ctx.stroke();
      ctx.fillStyle = "#ffffffb0";
      ctx.beginPath();
      ctx.arc(-0.045, 0.315, 0.04, 0, TAU);
      ctx.fill();
    });
  }

  /** Where it is, when it is above the picture. */
  drawMarker(lander) {
    const { ctx, colours } = this;
    const x = Math.max(0.4, Math.min(this.moon.size[0] - 0.4, lander.x));
    ctx.fillStyle = colours.contact;
    ctx.beginPath();
    for (const [dx, dy] of [[0, -0.25], [-0.25, -0.65], [0.25, -0.65]]) ctx.lineTo(x + dx, VIEW + dy);
    ctx.fill();
  }

  /** Draw in a frame of reference of its own. */
  at(x, y, angle, drawing) {
    this.ctx.save();
    this.ctx.translate(x, y);
    this.ctx.rotate(angle);
    drawing();
    this.ctx.restore();
  }
}
