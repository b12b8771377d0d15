// The page: its flights, what is asked of all of them, and what the server tells of its policies.

import { Flight } from "./flight.js";
import { listen } from "./keys.js";
import { fetchPolicies, keepToken } from "./server.js";

const POLL = 2000; // ms
const SLOW = 0.2;
const FAST = 4;
const MOST_SEED = 2 ** 31 - 1;
const byId = (id) => document.getElementById(id);
const flights = [];
let policies = [];
let chosen = null; // the flight that keys fly
let all = { speed: 1, pause: false };

async function poll() {
  clearTimeout(poll.timer);
  const answer = await fetchPolicies();
  byId("token").hidden = answer.status !== 401;
  for (const id of ["bar", "flights", "help"]) byId(id).hidden = answer.status === 401 || !flights.length;
  if (answer.status === 401) {
    if (poll.submitted) byId("token-wrong").textContent = "That is not the token.";
    poll.submitted = false;
    while (flights.length) flights.pop().close();
    setConnection("locked", "needs a token");
    return; // until one is given
  }
  if (answer.policies.length) {
    byId("token-wrong").textContent = "";
    policies = answer.policies;
    if (!flights.length) start();
    flights.forEach(describePolicies);
  } else if (!flights.length) {
    const said = answer.status ? `refuses with ${answer.status}` : "does not answer";
    setConnection("away", `the server ${said}; trying again`);
  }
  poll.timer = setTimeout(poll, POLL);
}

function start() {
  add({ policy: policies[0].name, ...all });
  for (const id of ["bar", "flights", "help"]) byId(id).hidden = false;
}

function add(wishes) {
  const page = { announce, onState: showState, onScene: showScene };
  const flight = new Flight(byId("flights"), wishes, page);
  flights.push(flight);
  chosen ??= flight;
  describePolicies(flight);
  for (const kind of ["pointerdown", "focusin"]) flight.element.addEventListener(kind, () => choose(flight));
  byId("flights").dataset.count = flights.length;
  byId("side").setAttribute("aria-pressed", flights.length > 1);
}

/** Keys fly this one from now on. */
function choose(flight) {
  if (chosen !== flight) chosen?.hold(null);
  chosen = flight;
}

/** The policies to choose from, changed in place: a list that is open stays open. */
function describePolicies(flight) {
  const select = flight.find(".policy");
  policies.forEach(({ name, env_id }, i) => {
    const option = select.options[i] ?? select.appendChild(document.createElement("option"));
    const text = `${name} · ${env_id}`;
    if (option.text !== text) Object.assign(option, { value: name, text });
  });
  select.value = flight.scene?.policy ?? flight.wishes.policy;
  const { refused } = policies.find(({ name }) => name === select.value) ?? {};
  const told = flight.find(".refused");
  told.hidden = !refused;
  if (refused) told.textContent = `A newer version is not flown: ${refused}`;
}

function sideBySide() {
  if (flights.length > 1) {
    flights.pop().close();
    choose(flights[0]);
    byId("flights").dataset.count = 1;
    byId("side").setAttribute("aria-pressed", false);
    return;
  }
  const [first] = flights;
  const seed = Number(first.element.dataset.seed ?? 0);
  const other = policies.find(({ name }) => name !== first.wishes.policy);
  if (first.scene?.target) add({ ...all, seed, policy: first.wishes.policy, target: first.course.other() });
  else if (other) add({ ...all, seed, policy: other.name });
  else add({ ...all, seed, policy: first.wishes.policy, sampled: true });
  first.command({ seed });
}

/** Ask all flights. */
function command(wish) {
  flights.forEach((flight) => flight.command(wish));
}

function setAll(wish) {
  all = { ...all, ...wish };
  byId("pause").setAttribute("aria-pressed", all.pause);
  byId("pause").firstChild.textContent = all.pause ? "Go on " : "Pause ";
  byId("slow").setAttribute("aria-pressed", all.speed === SLOW);
  byId("fast").setAttribute("aria-pressed", all.speed === FAST);
  command(wish);
}

function newSeed() {
  complainOfSeed("");
  command({ seed: Math.floor(Math.random() * 1_000_000) }); // one for all flights, so that they can be compared
}

function complainOfSeed(text) {
  byId("seed-wrong").textContent = text;
  byId("seed").setAttribute("aria-invalid", text !== "");
}

const shortcuts = {
  Space: () => setAll({ pause: !all.pause }),
  KeyS: () => setAll({ speed: all.speed === SLOW ? 1 : SLOW }),
  KeyF: () => setAll({ speed: all.speed === FAST ? 1 : FAST }),
  KeyN: newSeed,
  KeyT: () => chosen?.keep(!chosen.kept),
};
byId("pause").onclick = shortcuts.Space;
byId("slow").onclick = shortcuts.KeyS;
byId("fast").onclick = shortcuts.KeyF;
byId("new-seed").onclick = newSeed;
byId("side").onclick = sideBySide;
byId("seed-form").onsubmit = (event) => {
  event.preventDefault();
  const seed = byId("seed").valueAsNumber; // NaN: empty, or no number
  const possible = Number.isInteger(seed) && 0 <= seed && seed <= MOST_SEED;
  complainOfSeed(possible ? "" : `A seed is a whole number from 0 to ${MOST_SEED}.`);
  if (possible) command({ seed });
};
byId("token").onsubmit = (event) => {
  event.preventDefault();
  keepToken(byId("token-field").value.trim());
  poll.submitted = true;
  poll();
};
listen(shortcuts, () => chosen, byId("shortcuts"));

function announce(text) {
  byId("live").textContent = text;
}

function showState() {
  const away = flights.find(({ state }) => state !== "open");
  setConnection(away?.state ?? "open", away?.reason ?? "live");
}

function showScene() {
  byId("seed").placeholder = `${flights[0]?.scene?.seed ?? "seed"}`;
}

function setConnection(state, text) {
  const said = byId("connection");
  if (said.textContent === text) return;
  if (said.dataset.state !== state && state !== "waiting") announce(text);
  Object.assign(said, { textContent: text }).dataset.state = state;
}

function draw(now) {
  requestAnimationFrame(draw); // first: a picture that fails must not be the last
  flights.forEach((flight) => flight.draw(now));
}

requestAnimationFrame(draw);
poll();
