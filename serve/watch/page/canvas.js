// What both kinds of picture share: a canvas as sharp as the screen, and the page's colours.

const SHARPEST = 2.5; // device pixels a CSS pixel; more cannot be seen and costs time

/** Fit a canvas's pixels to its size on the screen; true if that changed. */
export function fit(canvas) {
  const ratio = Math.min(devicePixelRatio || 1, SHARPEST);
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width === width && canvas.height === height) return false;
  Object.assign(canvas, { width, height });
  return true;
}

/** The custom properties of the page by name; those of the scheme that is set now. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, {
    get: (known, name) => (known[name] ??= style.getPropertyValue(`--${String(name)}`).trim()),
  });
}

/** A colour at the clear end of its own gradient; "transparent" is black, and shows. */
export function clear(colour) {
  return `${colour.slice(0, 7)}00`;
}

/** Random numbers from 0 to 1 that a seed determines (mulberry32). */
export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
}
