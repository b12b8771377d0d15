// One flight on the page: its connection, picture, instruments, landings, and who has the stick.

import { Course } from "./course.js";
import { landerBetween } from "./interpolation.js";
import { Instruments } from "./instruments.js";
import { Landings } from "./landings.js";
import { MoonPicture } from "./moon.js";
import { Link } from "./server.js";
import { FilmPicture } from "./film.js";
import { SeenPicture } from "./seen.js";
import { TracePicture } from "./traces.js";

const SETTLED = 500; // ms that a hand-over must last to be announced: a nudge with a key is not
const NUDGE = 200; // ms that an engine fires when its button is pressed without a pointer
const RATED = 100; // frames that the rate is taken from
const GAP = 400; // ms between frames that are a pause, not a rate

export class Flight {
  /**
   * @param {HTMLElement} parent
   * @param {object} wishes commands to begin with: policy, seed, sampled, target, speed, pause
   * @param {{announce: (text: string) => void, onState: () => void, onScene: () => void}} page
   */
  constructor(parent, wishes, page) {
    Object.assign(this, { wishes, page, scene: null, latest: null, previous: null, seen: [] });
    Object.assign(this, { held: null, nudging: false, kept: false, sent: null, stamps: [], frames: 0, state: "waiting" });
    this.element = document.getElementById("flight").content.firstElementChild.cloneNode(true);
    parent.append(this.element);
    this.find = (selector) => this.element.querySelector(selector);
    this.instruments = new Instruments(this.element);
    this.landings = new Landings(this.find(".landings"));
    this.course = new Course(this.find(".course"), (target) => this.command({ target }));
    this.find(".take").onclick = () => this.keep(!this.kept);
    this.find(".policy").onchange = ({ target }) => this.command({ policy: target.value });
    this.find(".sampled").onchange = ({ target }) => this.command({ sampled: target.checked });
    this.link = new Link(() => this.wishes, (message) => this.receive(message), (state, text) => this.connection(state, text));
  }

  close() {
    this.link.close();
    this.film?.close();
    this.element.remove();
  }

  /** Ask for something, now and after every loss of the connection. */
  command(command) {
    Object.assign(this.wishes, command);
    if ("policy" in command) {
      this.letGo();
      delete this.wishes.target; // the next has one of its own
    }
    if (command.seed === null) delete this.wishes.seed;
    this.link.send(command);
  }

  connection(state, text) {
    Object.assign(this, { state, reason: text });
    this.element.dataset.state = state;
    if (state !== "open") this.sent = null;
    this.page.onState();
  }

  receive(message) {
    if (message.type === "scene") this.begin(message);
    else if (message.type === "frame") this.show(message);
    else if (message.type === "landed") this.land(message);
    else if (message.type === "kept") this.keeps(message.kept, true);
    else this.complain(message);
  }

  begin(scene) {
    const canvas = this.find("canvas");
    this.scene = scene;
    this.wishes.seed = scene.seed; // after a lost connection the same episode begins again
    this.wishes.policy = scene.policy;
    this.latest = this.previous = null;
    this.stamps = [];
    const sees = scene.sees.length > 0;
    this.traces = scene.moon || sees ? null : new TracePicture(canvas, scene);
    this.film = scene.pictures ? new FilmPicture(canvas, sees, this.film) : null;
    this.moon = scene.moon && new MoonPicture(canvas, scene);
    this.lookAt(scene.sees);
    this.find(".drawn").hidden = sees && !this.film;
    this.find(".lines").hidden = !this.film || sees;
    this.find(".landings h2").textContent = scene.moon ? "Last landings" : "Last episodes";
    this.element.dataset.outcome = "";
    this.element.dataset.seed = scene.seed;
    this.find(".notice").hidden = true;
    const [id] = /[^ (|]+/.exec(scene.env_id); // without arguments and wrappers, which may be long
    Object.assign(this.find(".caption"), { textContent: `${id} · seed ${scene.seed}`, title: scene.env_id });
    this.find(".policy").value = scene.policy;
    this.find(".sampled").checked = scene.sampled;
    this.keeps(scene.kept);
    this.course.begin(scene);
    this.landings.of(scene);
    this.find(".take").hidden = !scene.stick;
    canvas.setAttribute("aria-label", `${scene.env_id} from seed ${scene.seed}, flown by ${scene.policy}`);
    this.element.setAttribute("aria-label", `Flight of ${scene.policy}`);
    this.instruments.begin(scene);
    this.buildSticks(scene.stick);
    this.page.onScene();
    this.steer();
  }

  /** Show pictures that the policy sees beside what is drawn; those of the episode before stay. */
  lookAt(views) {
    if (JSON.stringify(views) === JSON.stringify(this.seen.map(({ view }) => view))) return;
    this.seen.forEach((picture) => picture.close());
    this.seen = views.map((view) => new SeenPicture(this.find(".stage"), view));
    this.find(".stage").classList.toggle("seeing", views.length > 0);
    this.find(".drawn canvas").style.aspectRatio = "";
  }

  show(frame) {
    const now = performance.now();
    if (now - this.arrived > GAP) this.stamps = [];
    this.stamps.push(now);
    if (this.stamps.length > RATED) this.stamps.shift();
    [this.previous, this.latest, this.arrived] = [this.latest, frame, now];
    this.frames += 1;
    for (const picture of [this.moon, this.film, this.traces]) picture?.add(frame);
    frame.seen?.forEach((picture, i) => this.seen[i].add(picture));
    this.instruments.note(frame);
    this.course.add(frame);
    if (frame.t > 0) this.pilot(frame.pilot);
    if (frame.t > 0 && frame.pilot === "you" && this.nudging) {
      this.nudging = false;
      this.nudged = setTimeout(() => this.hold(null), NUDGE);
    }
  }

  land(landing) {
    const good = this.landings.add(landing);
    this.element.dataset.outcome = good;
    const total = Math.round(landing.total);
    const asked = landing.target === null ? "" : ` for ${Math.round(landing.target)}`;
    const name = document.querySelectorAll(".flight").length > 1 ? `${this.scene.policy}${asked}: ` : "";
    this.find(".verdict").textContent = `${landing.outcome} ${total > 0 ? "+" : "−"}${Math.abs(total)}`;
    this.page.announce(`${name}${landing.outcome}, return ${total}, ${landing.steps} steps`);
  }

  /** Tell how many flights of people are kept; null: none are to be. */
  keeps(kept, another = false) {
    const told = this.find(".kept");
    told.hidden = kept === null || !this.scene.stick;
    const flights = kept === 1 ? "1 flight is" : `${kept} flights are`;
    told.textContent = kept ? `${flights} kept to learn from.` : "Flights that you fly from start to end are kept to learn from.";
    if (another) this.page.announce(told.textContent);
  }

  complain({ error, field }) {
    const notice = this.find(".notice");
    Object.assign(notice, { hidden: false, textContent: error });
    if (this.scene) {
      this.find(".policy").value = this.wishes.policy = this.scene.policy;
      if (field) setTimeout(() => (notice.hidden = true), 6000);
    }
    this.page.announce(error);
  }

  /** Draw the newest state. Called for each picture of the screen. */
  draw(now) {
    if (!this.latest) return;
    if (this.moon) this.moon.draw(this.wishes.speed < 1 ? landerBetween(this, now) : this.latest.lander);
    else if (this.film && !(this.traces && this.find(".lines input").checked)) this.film.draw();
    else this.traces?.draw();
    if (now - (this.written ?? 0) < 100) return; // figures that change faster cannot be read
    this.written = now;
    this.element.dataset.frames = this.frames;
    this.instruments.write();
    this.course.write(now);
    const flown = this.stamps.at(-1) - this.stamps[0];
    const rate = Math.round((1000 * (this.stamps.length - 1)) / flown);
    this.find(".rate").textContent = now - this.arrived < GAP && flown > GAP ? `${rate} fps` : "";
  }

  /** Take the stick until it is handed back. */
  keep(kept) {
    if (!this.scene?.stick) return;
    this.kept = kept;
    this.steer();
  }

  /** Fly an action while a key or a finger is on it; null: nothing is. */
  hold(action) {
    if (!this.scene?.stick || (action !== null && action >= this.scene.stick.labels.length)) return;
    clearTimeout(this.nudged);
    Object.assign(this, { held: action, nudging: false });
    this.steer();
  }

  /** Fly an action for a moment, from when it is flown: a busy server would hear of its end before it flies on. */
  nudge(action) {
    this.hold(action);
    this.nudging = true;
  }

  letGo() {
    Object.assign(this, { held: null, kept: false, nudging: false });
    this.steer();
  }

  steer() {
    const { stick } = this.scene ?? {};
    const idle = stick?.idle ?? this.sent ?? 0;
    const wanted = this.held ?? (this.kept && stick ? idle : null);
    if (wanted !== this.sent) this.link.send({ stick: wanted });
    this.sent = wanted;
    this.find(".take").setAttribute("aria-pressed", this.kept);
    this.find(".take").firstChild.textContent = this.kept ? "Hand it back " : "Take the stick ";
    for (const button of this.element.querySelectorAll(".sticks button")) {
      button.classList.toggle("down", Number(button.value) === this.held);
    }
  }

  pilot(pilot) {
    if (this.element.dataset.pilot === pilot) return;
    const first = !this.element.dataset.pilot;
    this.element.dataset.pilot = pilot;
    const text = pilot === "you" ? "You fly" : "Policy flies";
    this.find(".pilot-now span").textContent = text;
    clearTimeout(this.handover);
    if (first) this.told = pilot;
    else this.handover = setTimeout(() => {
      if (this.told !== pilot) this.page.announce(text);
      this.told = pilot;
    }, SETTLED);
  }

  buildSticks(stick) {
    const group = this.find(".sticks");
    group.hidden = !stick;
    if (!stick || group.dataset.of === stick.labels.join()) return;
    group.dataset.of = stick.labels.join();
    const signs = { [stick.fire]: "✕", [stick.left]: "◀", [stick.up]: "▲", [stick.right]: "▶", [stick.down]: "▼" };
    const order = this.scene.moon ? [stick.left, stick.up, stick.right] : stick.labels.map((_, i) => i);
    group.replaceChildren(...order.map((action) => {
      const button = Object.assign(document.createElement("button"), { type: "button", value: action });
      const sign = Object.assign(document.createElement("span"), { textContent: signs[action] ?? "●" });
      sign.setAttribute("aria-hidden", "true");
      button.append(sign, ` ${stick.labels[action]}`);
      button.onpointerdown = (event) => {
        button.setPointerCapture(event.pointerId);
        this.hold(action);
      };
      button.onpointerup = button.onpointercancel = () => this.hold(null);
      button.onclick = ({ detail }) => detail === 0 && this.nudge(action); // by keyboard or a screen reader
      button.oncontextmenu = (event) => event.preventDefault(); // a long press is a long burn
      return button;
    }));
  }
}
