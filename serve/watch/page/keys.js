// The keyboard: shortcuts, and the stick while keys are held. Never while somebody types or works a control.

const WAYS = {
  ...{ ArrowLeft: "left", ArrowUp: "up", ArrowRight: "right", ArrowDown: "down" },
  ...{ KeyA: "left", KeyW: "up", KeyD: "right", KeyX: "fire" },
};

/**
 * @param {Record<string, () => void>} shortcuts by the key's code, such as KeyS
 * @param {() => import("./flight.js").Flight} active the flight that the stick belongs to
 * @param {HTMLInputElement} enabled a checkbox
 */
export function listen(shortcuts, active, enabled) {
  const held = []; // actions, the newest last

  const fly = (flight) => flight?.hold(held.at(-1)?.action ?? null);

  addEventListener("keydown", (event) => {
    if (!enabled.checked || event.ctrlKey || event.altKey || event.metaKey || isTyping(event)) return;
    const flight = active();
    const action = actionOf(event.code, flight);
    if (action === null && !shortcuts[event.code]) return;
    event.preventDefault();
    if (event.repeat) return;
    if (action === null) {
      shortcuts[event.code]();
    } else if (!held.some(({ code }) => code === event.code)) {
      held.push({ code: event.code, action });
      fly(flight);
    }
  });

  addEventListener("keyup", ({ code }) => {
    const at = held.findIndex((one) => one.code === code);
    if (at < 0) return;
    held.splice(at, 1);
    fly(active());
  });

  // A window that loses the focus never hears that a key went up.
  addEventListener("blur", () => {
    if (held.length) fly(active(held.splice(0)));
  });
}

function actionOf(code, flight) {
  const stick = flight?.scene?.stick;
  if (!stick) return null;
  if (WAYS[code]) return stick[WAYS[code]];
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(code)?.[1];
  return digit !== undefined && Number(digit) < stick.labels.length ? Number(digit) : null;
}

function isTyping({ target, code }) {
  if (target.matches("input:not([type=checkbox]), select, textarea, [contenteditable]")) return true;
  return code === "Space" && target.matches("button, input, summary, a"); // it presses them
}
