// Requests to the server that this page came from, and one sentence for whatever can go wrong.

const MOST_TRIES = 6, LONGEST_WAIT_S = 30, ANSWER_AFTER_S = 10;
const SENTENCES = {
  401: "This server asks for an API key.",
  404: "The server does not have this model.",
  413: "The picture is larger than the server takes.",
  415: "The server does not read files of this kind.",
  503: "The server is busy; try again later.",
  504: "The server took too long; try again later.",
};
const limits = {};
let key = "";

/** An answer that is no caption, in one sentence. */
export class Problem extends Error {
  constructor(sentence, status = 0) {
    super(asSentence(sentence));
    this.status = status;
  }
}

export function useKey(value) { key = value; }

/** Return what the server says of its models, limits and settings. */
export async function info() {
  const found = await (await ask("info", {cache: "no-store"})).json();
  Object.assign(limits, found.limits);
  return found;
}

/**
 * Return the caption of a file. While the server is busy it is asked again, as late as it wants; `busy` gets the seconds until then.
 * @throws {Problem}
 */
export async function captionOf(file, query, {signal, busy}) {
  if (file.size > limits.max_bytes) {
    throw new Problem(`The file has ${megabytes(file.size)}; the server takes at most ${megabytes(limits.max_bytes)}.`, 413);
  }
  const body = new FormData();
  body.append("image", file, file.name);
  for (let tries = 1; ; tries++) {
    try {
      const answer = await ask(`caption?${new URLSearchParams(query)}`, {method: "POST", body, signal: withDeadline(signal)});
      return await answer.json();
    } catch (error) {
      if (signal.aborted) throw error;
      if (error.status === 503 && tries < MOST_TRIES) {
        busy(error.after_s);
        await pause(error.after_s, signal);
      } else {
        throw error instanceof Problem ? error : await whyNoAnswer(error, file);
      }
    }
  }
}

async function ask(path, options) {
  const answer = await fetch(path, {...options, headers: key ? {Authorization: `Bearer ${key}`} : {}});
  if (answer.ok) return answer;
  const said = await answer.json().then((body) => body.error, () => "");
  const problem = new Problem(typeof said === "string" && said ? said : SENTENCES[answer.status] ?? `The server answered with status ${answer.status}.`, answer.status);
  const after_s = Number(answer.headers.get("Retry-After"));
  problem.after_s = Math.min(after_s > 0 ? after_s : 1, LONGEST_WAIT_S);
  throw problem;
}

async function whyNoAnswer(error, file) {
  if (error.name === "TimeoutError") return new Problem(`No answer came within ${limits.timeout_s + ANSWER_AFTER_S} seconds; try again later.`);
  const isThere = await file.slice(0, 1).arrayBuffer().then(() => true, () => false);
  if (!isThere) return new Problem("The file cannot be read: it was moved or has changed since it was chosen.");
  const isAlive = await fetch("health").then((answer) => answer.ok, () => false);
  return new Problem(isAlive ? "The connection broke while the picture was sent; try again." : "The server cannot be reached: it has stopped, or the network is down.");
}

function withDeadline(signal) {
  return limits.timeout_s ? AbortSignal.any([signal, AbortSignal.timeout(1000 * (limits.timeout_s + ANSWER_AFTER_S))]) : signal;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, {once: true});
  });
}

function asSentence(text) {
  const whole = text.trim().replace(/^image: /, "").replace(/[^.!?]$/, "$&.");  // the picture is beside it
  return whole.charAt(0).toUpperCase() + whole.slice(1);
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB`;
