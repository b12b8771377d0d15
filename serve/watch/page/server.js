// The server: which policies it has, and a socket for each flight that comes back by itself.

const KEY = "touchdown-token";
const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000; // ms between attempts

export function keepToken(token) {
  sessionStorage.setItem(KEY, token);
}

/** {status, policies}: status 0 when nobody answers. */
export async function fetchPolicies() {
  const token = sessionStorage.getItem(KEY);
  try {
    const answer = await fetch("policies", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
    return { status: answer.status, policies: answer.ok ? (await answer.json()).policies : [] };
  } catch {
    return { status: 0, policies: [] };
  }
}

/** Browsers set no headers on a socket: the token goes as a subprotocol. */
function protocols() {
  const token = sessionStorage.getItem(KEY);
  if (!token) return ["touchdown"];
  const bytes = String.fromCharCode(...new TextEncoder().encode(token));
  return ["touchdown", `bearer.${btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`];
}

export class Link {
  /**
   * @param {() => object} wishes what to ask for on connecting, again on each new connection: commands by name
   * @param {(message: object) => void} onMessage
   * @param {(state: string, text: string) => void} onState open, or away with the reason
   */
  constructor(wishes, onMessage, onState) {
    Object.assign(this, { wishes, onMessage, onState, wait: FIRST_WAIT, closed: false });
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    const address = new URL("watch", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    for (const [name, value] of Object.entries(this.wishes())) address.searchParams.set(name, value);
    this.socket = new WebSocket(address, protocols());
    this.socket.onopen = () => this.onState("open", "live");
    this.socket.onmessage = ({ data }) => {
      this.wait = FIRST_WAIT; // only a flight counts as success: one viewer too many is let in and sent away again
      this.onMessage(JSON.parse(data));
    };
    this.socket.onclose = ({ code, reason }) => this.retry(code === 1013 ? reason : "connection lost");
  }

  retry(reason) {
    if (this.closed) return;
    const seconds = Math.max(1, Math.round(this.wait / 1000));
    this.onState("away", `${reason}; trying again in ${seconds} s`);
    this.timer = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
  }

  /** Without a connection commands are dropped: on the next one, the wishes say it all. */
  send(command) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(command));
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket.close();
  }
}
