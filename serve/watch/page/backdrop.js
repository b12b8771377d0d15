// The part of the moon that stays: sky, stars, Earth, ridges, ground and pad. Drawn once an episode.

import { clear, randomFrom } from "./canvas.js";

const TAU = 2 * Math.PI;

/** Draw it all. The context's units are metres, y upwards; width and height are what is in view. */
export function drawBackdrop(ctx, moon, seed, width, height, colours) {
  const random = randomFrom(seed);
  drawSky(ctx, width, height, colours);
  drawStars(ctx, width, height, random, Number(colours["star-alpha"]), colours.star);
  drawEarth(ctx, 2.6 + 2.6 * random(), height - 2.5, 0.8, colours);
  drawRidge(ctx, width, 4.6, 1.5, random, colours["ridge-far"]);
  drawRidge(ctx, width, 3.4, 1.1, random, colours["ridge-near"]);
  drawGround(ctx, moon.terrain, random, colours);
  drawPad(ctx, moon.pad, colours);
}

function drawSky(ctx, width, height, colours) {
  const sky = ctx.createLinearGradient(0, height, 0, 0);
  sky.addColorStop(0, colours["sky-top"]);
  sky.addColorStop(0.55, colours["sky-middle"]);
  sky.addColorStop(0.85, colours["sky-low"]);
  ctx.fillStyle = sky;
  ctx.fillRect(0, 0, width, height);
}

function drawStars(ctx, width, height, random, alpha, colour) {
  ctx.fillStyle = colour;
  for (let i = 0; i < 170; i++) {
    const [x, y, bright] = [random() * width, height * (1 - 0.8 * random() ** 1.4), random() ** 3];
    ctx.globalAlpha = alpha * (0.25 + 0.75 * bright);
    ctx.beginPath();
    ctx.arc(x, y, 0.012 + 0.03 * bright, 0, TAU);
    ctx.fill();
  }
  ctx.globalAlpha = 1;
}

function drawEarth(ctx, x, y, radius, colours) {
  const glow = ctx.createRadialGradient(x, y, radius * 0.8, x, y, radius * 3.2);
  glow.addColorStop(0, colours["earth-glow"]);
  glow.addColorStop(0.4, colours["earth-halo"]);
  glow.addColorStop(1, clear(colours["earth-glow"]));
  ctx.fillStyle = glow;
  ctx.fillRect(x - 4 * radius, y - 4 * radius, 8 * radius, 8 * radius);
  ctx.save();
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, TAU);
  ctx.clip();
  ctx.fillStyle = colours["earth-sea"];
  ctx.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
  ctx.fillStyle = colours["earth-land"];
  for (const [dx, dy, a, b, turn] of [[0.25, 0.35, 0.42, 0.2, 0.5], [0.4, -0.25, 0.2, 0.38, 0.2], [-0.35, 0.1, 0.2, 0.14, 1]]) {
    ctx.beginPath();
    ctx.ellipse(x + dx * radius, y + dy * radius, a * radius, b * radius, turn, 0, TAU);
    ctx.fill();
  }
  ctx.fillStyle = colours["earth-cloud"];
  for (const [dx, dy, a, b] of [[0.1, 0.7, 0.5, 0.07], [0.35, 0.08, 0.45, 0.06], [0.05, -0.55, 0.5, 0.07]]) {
    ctx.beginPath();
    ctx.ellipse(x + dx * radius, y + dy * radius, a * radius, b * radius, -0.25, 0, TAU);
    ctx.fill();
  }
  const night = ctx.createRadialGradient(x + 0.55 * radius, y + 0.45 * radius, radius * 0.5, x + 0.3 * radius, y + 0.25 * radius, radius * 1.5);
  night.addColorStop(0, clear(colours["earth-night"]));
  night.addColorStop(1, colours["earth-night"]);
  ctx.fillStyle = night;
  ctx.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
  ctx.restore();
}

function drawRidge(ctx, width, base, rise, random, colour) {
  const waves = [0.25, 0.6, 1.3, 2.9].map((k) => [k * (0.8 + 0.4 * random()), TAU * random(), rise / (1 + 2 * k)]);
  ctx.beginPath();
  ctx.moveTo(0, 0);
  for (let x = 0; x <= width + 0.1; x += 0.1) {
    ctx.lineTo(x, base + waves.reduce((sum, [k, phase, size]) => sum + size * Math.sin(k * x + phase), 0));
  }
  ctx.lineTo(width, 0);
  ctx.fillStyle = colour;
  ctx.fill();
}

function drawGround(ctx, terrain, random, colours) {
  const ground = new Path2D();
  ground.moveTo(terrain[0][0], 0);
  for (const [x, y] of terrain) ground.lineTo(x, y);
  ground.lineTo(terrain.at(-1)[0], 0);
  ground.closePath();
  const top = Math.max(...terrain.map(([, y]) => y));
  const fill = ctx.createLinearGradient(0, top, 0, 0);
  fill.addColorStop(0, colours["ground-top"]);
  fill.addColorStop(1, colours["ground-low"]);
  ctx.fillStyle = fill;
  ctx.fill(ground);
  ctx.save();
  ctx.clip(ground);
  for (let i = 0; i < 26; i++) {
    const [x, y, size] = [random() * terrain.at(-1)[0], random() * top * 0.95, 0.1 + 0.5 * random() ** 2];
    ctx.fillStyle = colours["crater-shade"];
    ctx.beginPath();
    ctx.ellipse(x, y, size, size * 0.34, 0, 0, TAU);
    ctx.fill();
    ctx.strokeStyle = colours["crater-rim"];
    ctx.lineWidth = 0.03;
    ctx.beginPath();
    ctx.ellipse(x, y, size, size * 0.34, 0, Math.PI * 1.05, Math.PI * 1.95);
    ctx.stroke();
  }
  ctx.restore();
  ctx.beginPath();
  for (const [x, y] of terrain) ctx.lineTo(x, y);
  ctx.strokeStyle = colours.rim;
  ctx.lineWidth = 0.06;
  ctx.lineJoin = "round";
  ctx.stroke();
}

function drawPad(ctx, [left, right, y], colours) {
  const glow = ctx.createLinearGradient(0, y + 1.6, 0, y);
  glow.addColorStop(0, clear(colours["pad-glow"]));
  glow.addColorStop(1, colours["pad-glow"]);
  ctx.fillStyle = glow;
  ctx.fillRect(left, y, right - left, 1.6);
  ctx.fillStyle = colours["pad-base"];
  ctx.fillRect(left, y - 0.22, right - left, 0.19);
  ctx.fillStyle = colours.pad;
  ctx.fillRect(left, y - 0.07, right - left, 0.07);
  for (let x = left + 0.3; x < right - 0.2; x += 0.5) ctx.fillRect(x, y - 0.19, 0.2, 0.05);
  for (const [x, way] of [[left, 1], [right, -1]]) {
    ctx.fillStyle = colours["pad-pole"];
    ctx.fillRect(x - 0.025, y - 0.05, 0.05, 1.25);
    ctx.fillStyle = colours.flag;
    ctx.beginPath();
    ctx.moveTo(x, y + 1.2);
    ctx.lineTo(x - 0.62 * way, y + 1.02);
    ctx.lineTo(x, y + 0.84);
    ctx.fill();
  }
}
