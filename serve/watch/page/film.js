// The picture of an environment that draws itself: its newest one, as large as fits.

import { fit, palette } from "./canvas.js";

const scheme = matchMedia("(prefers-color-scheme: light)");

/** A picture that came in base64. */
export function decoded(picture, type) {
  const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type }));
}

export class FilmPicture {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {boolean} fits whether the canvas takes the shape of the picture
   * @param {FilmPicture} [before] of the episode before, whose picture stays until there is a newer one
   */
  constructor(canvas, fits, before) {
    Object.assign(this, { canvas, fits, ctx: canvas.getContext("2d"), asked: 0, shown: 0, bitmap: before?.bitmap, over: false });
    if (before) Object.assign(before, { bitmap: null, over: true });
  }

  add({ picture }) {
    if (!picture) return;
    const number = ++this.asked;
    decoded(picture, "image/jpeg").then((bitmap) => {
      if (number < this.shown || this.over) return bitmap.close(); // one that came later was quicker
      this.bitmap?.close();
      [this.bitmap, this.shown] = [bitmap, number];
    });
  }

  draw() {
    const { canvas, ctx, bitmap } = this;
    if (bitmap && this.fits) canvas.style.aspectRatio = bitmap.width / bitmap.height;
    if (this.light !== scheme.matches) [this.light, this.colours] = [scheme.matches, palette()];
    fit(canvas);
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.fillStyle = this.colours["sky-top"];
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    if (!bitmap) return;
    const scale = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    ctx.drawImage(bitmap, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  }

  close() {
    this.bitmap?.close();
    Object.assign(this, { bitmap: null, over: true });
  }
}
