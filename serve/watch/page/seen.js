// What a policy sees, to the pixel: the newest frame large, those before it small beneath.

import { decoded } from "./film.js";

export class SeenPicture {
  /**
   * @param {HTMLElement} stage where it is shown
   * @param {{name: string, width: number, height: number, frames: number, coloured: boolean}} view
   */
  constructor(stage, view) {
    Object.assign(this, { view, asked: 0, shown: 0 });
    const { name, width, height, frames, coloured } = view;
    this.contexts = Array.from({ length: frames }, (_, i) => {
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", i < frames - 1 ? `${frames - 1 - i} frames before` : "What the policy sees");
      return canvas.getContext("2d");
    });
    const canvases = this.contexts.map(({ canvas }) => canvas);
    const earlier = Object.assign(document.createElement("div"), { className: "earlier" });
    earlier.append(...canvases.slice(0, -1));
    const size = `${width} × ${height} in ${coloured ? "colour" : "gray"}`;
    const text = `What the policy sees${name && `, ${name}`}: ${size}${frames > 1 ? `, ${frames} frames` : ""}`;
    this.figure = Object.assign(document.createElement("figure"), { className: "seen" });
    this.figure.append(canvases.at(-1), earlier, Object.assign(document.createElement("figcaption"), { textContent: text }));
    stage.append(this.figure);
  }

  add(picture) {
    const number = ++this.asked;
    decoded(picture, "image/png").then((bitmap) => {
      const { width, height } = this.view;
      if (number > this.shown) { // one that came later may have been quicker
        this.shown = number;
        this.contexts.forEach((ctx, i) => ctx.drawImage(bitmap, i * width, 0, width, height, 0, 0, width, height));
      }
      bitmap.close();
    });
  }

  close() {
    this.figure.remove();
  }
}
